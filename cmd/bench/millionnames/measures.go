package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
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
	before, counted := heap(), b.certs.CacheBytes()
	for i := range n {
		if err := b.visit(i); err != nil {
			return err
		}
	}
	bytes := (heap() - before) / int64(n)
	counted = (b.certs.CacheBytes() - counted) / int64(n)
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
	rss, peak := memory(os.Getpid())
	fmt.Fprintf(out, "%d names known after %.1f s: RSS %.0f MiB, at most %.0f\n", o.names, time.Since(began).Seconds(), rss, peak)
	loads := min(int64(o.names), o.budget/600)
	if err := b.load(ctx, int(loads), runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	rss, peak = memory(os.Getpid())
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
