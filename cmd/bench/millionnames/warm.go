package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"gatelodge/storage"
)

const (
	coldLoaders  = 4         // how many load cold names while warm ones are looked up
	warmRounds   = 5         // of which medians are taken
	evictingIn   = 64 << 20  // bytes of the cache that is too small for what they load
	hotFootprint = 100 << 10 // bytes of the cache for each warm name, so that twice as many would be kept ready
)

// measureWarm says how long look-ups of warm names take beside others that load cold ones: while the cache has room, and while it has none, so that each load pushes
// something out. As four busy loaders would slow down anybody on a machine with few processors, there is a third number: beside four that do the same work without the
// manager.
func measureWarm(ctx context.Context, o options, out io.Writer) error {
	small := min(o.budget, evictingIn)
	warm := min(500, o.names/4, int(small/hotFootprint))
	b, err := open(ctx, o, o.budget)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.awaitIndex(ctx); err != nil {
		return err
	}
	for range 4 {
		if err := b.load(ctx, warm, 1); err != nil {
			return err
		}
	}
	w := warmth{bench: b, phase: o.phase, warm: warm}
	if err := w.compare(ctx, "with room", out); err != nil {
		return err
	}
	if err := b.resize(small); err != nil {
		return err
	}
	for i := int64(0); i < small/400 && b.certs.CacheBytes() < small/100*95; i++ { // few names do not fill it
		if err := w.loadCold(); err != nil {
			return err
		}
	}
	return w.compare(ctx, "evicting", out)
}

// warmth is one measurement of look-ups.
type warmth struct {
	*bench
	phase time.Duration
	warm  int // names
}

// loadCold is the handshake of a name that is most likely not in memory.
func (w *warmth) loadCold() error { return w.visit(w.warm + rand.IntN(w.mint.names-w.warm)) }

// parse is what that costs, without the manager.
func (w *warmth) parse() error {
	_, err := storage.DecodeBundle("certs/x", w.mint.object(rand.IntN(w.mint.names)))
	return err
}

// compare measures some rounds of all kinds, in turn, since machines are not as fast at all times.
func (w *warmth) compare(ctx context.Context, how string, out io.Writer) error {
	arms := []struct {
		name string
		f    func() error
	}{{"alone", nil}, {"beside 4 that parse certificates only", w.parse}, {"beside 4 that load cold names", w.loadCold}}
	var alone, outside []float64 // p99 beside cold loaders, relative to the others
	for round := range warmRounds {
		var p99 [3]float64
		for i, arm := range arms {
			times, loads, err := w.lookUps(ctx, arm.f)
			if err != nil {
				return err
			}
			p99[i] = float64(times.quantile(0.99))
			fmt.Fprintf(out, "warm look-up %s, round %d, %s: p50 %v, p99 %v, p99.9 %v, longest %v; %d look-ups, %d others; cache %d MiB\n", how, round+1, arm.name,
				times.quantile(0.5), times.quantile(0.99), times.quantile(0.999), times.longest, times.count, loads, w.certs.CacheBytes()>>20)
		}
		alone, outside = append(alone, p99[2]/p99[0]), append(outside, p99[2]/p99[1])
	}
	fmt.Fprintf(out, "warm look-up %s, p99 beside 4 that load cold names: %.2fx alone, %.2fx beside 4 that parse only (medians of %d rounds)\n", how, median(alone), median(outside), warmRounds)
	return nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// lookUps measures look-ups one by one, for the time of a phase, beside the loaders that do f.
func (w *warmth) lookUps(ctx context.Context, f func() error) (times *histogram, loads int, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	var loaders sync.WaitGroup
	counts := make([]int, coldLoaders)
	for i := range coldLoaders {
		if f == nil {
			break
		}
		loaders.Go(func() {
			for ctx.Err() == nil {
				if err := f(); err != nil {
					stop(err)
				}
				counts[i]++
			}
		})
	}
	hellos := make([]*tls.ClientHelloInfo, w.warm)
	for i := range hellos {
		hellos[i] = helloFor(i)
	}
	times = new(histogram)
	for end := time.Now().Add(w.phase); time.Now().Before(end) && ctx.Err() == nil; {
		hello := hellos[rand.IntN(w.warm)]
		began := time.Now()
		cert, err := w.certs.GetCertificate(hello)
		times.add(time.Since(began))
		if err != nil || cert == nil {
			stop(fmt.Errorf("no certificate for %s: %w", hello.ServerName, err))
		}
	}
	err = context.Cause(ctx)
	stop(nil)
	loaders.Wait()
	for _, n := range counts {
		loads += n
	}
	return times, loads, err
}
