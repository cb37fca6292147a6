package certs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Values of Settings.Preload.
const (
	PreloadNone = "none"
	PreloadHot  = "hot"
	PreloadAll  = "all"
)

const (
	preloaders   = 4 // reads of storage at a time; handshakes go before, by being more
	preloadFails = 8 // failures after which it is left to handshakes
)

// preload fills the memory after the start, as far as the budget allows, and pushes nothing out of it. Handshakes go on meanwhile: one that comes before its
// certificate reads it itself.
func (m *Manager) preload(ctx context.Context) {
	began := time.Now()
	var names []string
	switch m.rules.Load().Preload {
	case PreloadHot:
		names = m.hotNames(ctx)
	case PreloadAll:
		select {
		case <-m.planner.told:
			names = m.planner.names()
		case <-ctx.Done():
		}
	default:
		return
	}
	work, loaded := make(chan string), atomic.Int64{}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failures atomic.Int64
	var all sync.WaitGroup
	for range preloaders {
		all.Go(func() {
			for name := range work {
				switch there, err := m.preloadOne(ctx, name); {
				case there:
					loaded.Add(1)
				case err != nil && ctx.Err() == nil && failures.Add(1) == preloadFails:
					m.log.Warn("certificates are not loaded ahead, storage is in trouble", zap.Error(err))
					stop()
				}
			}
		})
	}
	for _, name := range names {
		if ctx.Err() != nil || m.cache.full() {
			break
		}
		work <- name
	}
	close(work)
	all.Wait()
	m.log.Info("certificates loaded ahead", zap.Int64("names", loaded.Load()), zap.Int("of", len(names)), zap.Duration("took", time.Since(began)))
}

// hotNames are those that were in use in the hour before the last visit of anybody, however long ago that was.
func (m *Manager) hotNames(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	file, _, err := readHot(ctx, m.store, m.log)
	if err != nil && context.Cause(ctx) != context.Canceled {
		m.log.Warn("certificates are not loaded ahead", zap.Error(err))
	}
	return file.latest()
}

// preloadOne takes the stored certificate of the name into use, if a site still wants one and it serves.
func (m *Manager) preloadOne(ctx context.Context, name string) (bool, error) {
	if t, ok := m.rules.Load().managed(name); !ok || t.brief || m.cache.get(name) != nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	cert, _, err := m.fetch(ctx, name)
	if err != nil || !cert.serves(time.Now()) {
		return false, err
	}
	m.install(cert)
	return true, nil
}
