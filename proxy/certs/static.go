package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// fileEvery is how often a site's own files are looked at. Two stat calls a pair; short enough for whoever has just copied them.
const fileEvery = 5 * time.Second

// fileKey names a pair of PEM files.
type fileKey struct{ cert, key string }

func keyOf(p Policy) fileKey { return fileKey{p.CertFile, p.KeyFile} }

// fileSet holds the sites' own certificates.
type fileSet struct {
	added chan struct{} // has room for one: there is a pair to watch

	mu    sync.Mutex // guards what follows; never held while reading files
	pairs map[fileKey]*filePair
	old   map[fileKey]*filePair // of the rules before: they are in use again as soon as they are asked for
}

// filePair is a certificate of a site's own. A pair outlives a reload of the settings.
type filePair struct {
	fileKey
	cert atomic.Pointer[tls.Certificate] // nil until the files were good for the first time

	mu   sync.Mutex // guards seen, and lets one reader read
	seen fileStamp  // of what was read last, good or bad
}

// fileStamp tells whether files are the same as before without reading them.
type fileStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// get returns the pair, which may be one that was never good.
func (s *fileSet) get(p Policy) *filePair {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.pairs[keyOf(p)]
	if f == nil {
		if f = s.old[keyOf(p)]; f == nil {
			f = &filePair{fileKey: keyOf(p)}
		}
		s.pairs[keyOf(p)] = f
		select {
		case s.added <- struct{}{}:
		default:
		}
	}
	return f
}

func (s *fileSet) all() []*filePair {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*filePair, 0, len(s.pairs))
	for _, f := range s.pairs {
		all = append(all, f)
	}
	return all
}

// newFileSet returns an empty set. Sets that follow one another share the channel, so that whoever watches hears of every pair.
func newFileSet(before *rules) *fileSet {
	s := &fileSet{added: make(chan struct{}, 1), pairs: map[fileKey]*filePair{}}
	if before != nil {
		s.added, s.old = before.files.added, map[fileKey]*filePair{}
		for _, f := range before.files.all() {
			s.old[f.fileKey] = f
		}
	}
	return s
}

// readFiles takes the policy's pair into the rules. A pair that was never read must be good: no reload begins to serve a site with nothing.
func (r *rules) readFiles(p Policy) error {
	f := r.files.get(p)
	switch err := f.refresh(r.log); {
	case f.cert.Load() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("site %s: %w", p.Site, err)
	}
	return fmt.Errorf("site %s: certificate %s with key %s still cannot be read", p.Site, p.CertFile, p.KeyFile)
}

// refresh reads both files if they changed since they were read last, and tells the log how it went. The pair from before stays in use when
// they are not good, for example because only one of them was copied yet.
func (f *filePair) refresh(log *zap.Logger) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp, err := f.stamp() // before reading: a change in between shows at the next look
	if err == nil && stamp == f.seen || err != nil && f.seen == gone() {
		return nil // nothing new to say
	}
	if f.seen = stamp; err != nil {
		f.seen = gone()
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(f.fileKey.cert, f.key)
	}
	if err != nil {
		err = fmt.Errorf("read certificate %s with key %s: %w", f.fileKey.cert, f.key, err)
		log.Warn("own certificate cannot be read, what was read before stays in use", zap.Bool("serving", f.cert.Load() != nil), zap.Error(err))
		return err
	}
	f.cert.Store(&cert)
	log.Info("own certificate read", zap.String("file", f.fileKey.cert), zap.Time("not_after", cert.Leaf.NotAfter))
	return nil
}

// gone is the stamp of files that could not be looked at.
func gone() fileStamp { return fileStamp{certSize: -1} }

func (f *filePair) stamp() (fileStamp, error) {
	c, err := os.Stat(f.fileKey.cert)
	if err != nil {
		return fileStamp{}, err
	}
	k, err := os.Stat(f.key)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{c.ModTime(), k.ModTime(), c.Size(), k.Size()}, nil
}

// watchFiles looks at the sites' own certificates until ctx ends.
func (m *Manager) watchFiles(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.rules.Load().files.added:
		}
		for sleep(ctx, fileEvery) {
			pairs := m.rules.Load().files.all()
			if len(pairs) == 0 {
				break // until one is added
			}
			for _, f := range pairs {
				_ = f.refresh(m.log) // it told the log
			}
		}
	}
}
