package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"gatelodge/storage"
)

// measureHeap says what a resident name costs.
func measureHeap(ctx context.Context, o options, out io.Writer) error {
	n := min(o.names-1, 100_000)
	b, err := open(ctx, o, 1<<30)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.awaitIndex(ctx); err != nil {
		return err
	}
	if err := b.visit(n); err != nil {
		return err
	}
	before := heap()
	for i := range n {
		if err := b.visit(i); err != nil {
			return err
		}
	}
	bytes := (heap() - before) / int64(n)
	counted := b.certs.CacheBytes() / int64(n)
	planned, err := plannedHeap(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "heap per resident name: %d B, %d of them its certificate (%d as the cache counts) and %d what planning knows of every name\n", bytes+planned, bytes, counted, planned)
	return nil
}

// plannedHeap is what a name costs that is only known.
func plannedHeap(ctx context.Context, o options) (int64, error) {
	before := heap()
	b, err := open(ctx, o, 1<<20)
	if err != nil {
		return 0, err
	}
	defer b.close()
	if err := b.awaitIndex(ctx); err != nil {
		return 0, err
	}
	return (heap() - before) / int64(o.names), nil
}

// measureResident says how much memory the process takes when it knows all names, and when the cache is full too.
func measureResident(ctx context.Context, o options, out io.Writer) error {
	b, err := open(ctx, o, o.budget)
	if err != nil {
		return err
	}
	defer b.close()
	began := time.Now()
	if err := b.awaitIndex(ctx); err != nil {
		return err
	}
	rss, peak := memory()
	fmt.Fprintf(out, "%d names known after %.1f s: RSS %.0f MiB, at most %.0f\n", o.names, time.Since(began).Seconds(), rss, peak)
	loads := min(int64(o.names), o.budget/600)
	if err := b.load(ctx, int(loads), runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	rss, peak = memory()
	fmt.Fprintf(out, "%d of them loaded, cache.memory %d MiB, %d used: RSS %.0f MiB, at most %.0f\n", loads, o.budget>>20, b.certs.CacheBytes()>>20, rss, peak)
	return nil
}

// load visits names, one after the other.
func (b *bench) load(ctx context.Context, names, workers int) error {
	errs := make(chan error, workers)
	for w := range workers {
		go func() {
			var err error
			for i := w; i < names && err == nil && ctx.Err() == nil; i += workers {
				err = b.visit(i)
			}
			errs <- err
		}()
	}
	var err error
	for range workers {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

// coldLoaders is how many load cold names while warm ones are looked up.
const coldLoaders = 4

// measureWarm says how long look-ups of warm names take beside others that load cold ones, and beside others that do the same work elsewhere.
func measureWarm(ctx context.Context, o options, out io.Writer) error {
	budget := min(o.budget, 64<<20)
	warm := min(500, o.names/4, int(budget/(100<<10))) // half of the certificates that are kept ready
	b, err := open(ctx, o, budget)
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
	cold := func() error { return b.visit(warm + rand.IntN(o.names-warm)) }
	work := func() error { // what a load does, without the manager
		_, err := storage.DecodeBundle("certs/x", b.mint.object(rand.IntN(o.names)))
		return err
	}
	arms := []struct {
		name string
		f    func() error
	}{{"alone", nil}, {"beside 4 that parse certificates only", work}, {"beside 4 that load cold names", cold}}
	var alone []time.Duration
	for round := range 3 {
		for _, arm := range arms {
			times, loads, err := b.lookUps(ctx, o.phase, warm, arm.f)
			if err != nil {
				return err
			}
			if arm.f == nil {
				alone = times
			}
			fmt.Fprintf(out, "warm look-up, round %d, %s: p50 %v, p99 %v (%.2fx alone), p99.9 %v, longest %v; %d look-ups, %d others; cache %d of %d MiB\n", round+1, arm.name,
				quantile(times, 0.5), quantile(times, 0.99), float64(quantile(times, 0.99))/float64(quantile(alone, 0.99)), quantile(times, 0.999), times[len(times)-1],
				len(times), loads, b.certs.CacheBytes()>>20, budget>>20)
		}
	}
	return nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(float64(len(sorted)-1)*q)]
}

// lookUps measures look-ups one by one, for the time of a phase, beside the loaders that do f. They come back sorted.
func (b *bench) lookUps(ctx context.Context, phase time.Duration, warm int, f func() error) (times []time.Duration, loads int, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	var loaders sync.WaitGroup
	counts := make([]int, coldLoaders)
	for w := range coldLoaders {
		if f == nil {
			break
		}
		loaders.Go(func() {
			for ctx.Err() == nil {
				if err := f(); err != nil {
					stop(err)
				}
				counts[w]++
			}
		})
	}
	hellos := make([]*tls.ClientHelloInfo, warm)
	for i := range hellos {
		hellos[i] = helloFor(i)
	}
	times = make([]time.Duration, 0, 1<<24)
	for end := time.Now().Add(phase); time.Now().Before(end) && ctx.Err() == nil && len(times) < cap(times); {
		hello := hellos[rand.IntN(warm)]
		began := time.Now()
		cert, err := b.certs.GetCertificate(hello)
		times = append(times, time.Since(began))
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
	slices.Sort(times)
	return times, loads, err
}

// measureCold says how many cold names one processor loads in a second, and what each costs storage.
func measureCold(ctx context.Context, o options, out io.Writer) error {
	runtime.GOMAXPROCS(1)
	b, err := open(ctx, o, o.budget)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.awaitIndex(ctx); err != nil {
		return err
	}
	n := 0
	reads, calls, began, used := b.mint.reads.Load(), b.mint.calls.Load(), time.Now(), cpu()
	for ; time.Since(began) < o.phase && n < o.names; n++ {
		if err := b.visit(n); err != nil {
			return err
		}
	}
	load := (cpu() - used) / time.Duration(n)
	reads, calls = b.mint.reads.Load()-reads, b.mint.calls.Load()-calls
	used = cpu()
	for i := range n {
		b.mint.object(i)
	}
	object := (cpu() - used) / time.Duration(n)
	fmt.Fprintf(out, "cold loads: %v of one processor each without storage, %.0f per second and core; %d loads, %.3f reads of certificates and %.3f reads of any kind for each\n",
		load-object, float64(time.Second)/float64(load-object), n, float64(reads)/float64(n), float64(calls)/float64(n))
	return nil
}
