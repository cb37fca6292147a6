package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// reading is what was seen of the server in some time: at most, unless it says otherwise.
type reading struct {
	goroutines, descriptors float64
	heap, stacks, resident  float64       // MiB; heap and stacks in use
	cpu                     time.Duration // used in that time
	took                    time.Duration

	visits []time.Duration // to the warm name, sorted
	failed int
	why    error
}

func (r reading) String() string {
	s := fmt.Sprintf("%.0f goroutines, heap %.0f MiB, stacks %.0f MiB, RSS %.0f MiB, %.0f descriptors, %.0f %% of a processor", r.goroutines, r.heap, r.stacks, r.resident, r.descriptors,
		100*r.cpu.Seconds()/max(r.took.Seconds(), 0.001))
	if n := len(r.visits); n > 0 {
		s += fmt.Sprintf("; warm name: %d handshakes, p50 %v, p99 %v, longest %v", n, r.visits[n/2].Round(10*time.Microsecond), r.visits[n*99/100].Round(10*time.Microsecond), r.visits[n-1].Round(10*time.Microsecond))
	}
	if r.failed > 0 {
		s += fmt.Sprintf(", %d failed (%v)", r.failed, r.why)
	}
	return s
}

// gauge watches the server until its end is asked for.
type gauge struct {
	l     *lodge
	stop  context.CancelFunc
	all   sync.WaitGroup
	began time.Time
	cpu   float64 // seconds, at the beginning

	reading // filled in by the goroutines, to be read after they have ended
	last    float64
}

func (l *lodge) watch(ctx context.Context) *gauge {
	ctx, stop := context.WithCancel(ctx)
	g := &gauge{l: l, stop: stop, began: time.Now()}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1}} // one connection, which a flood cannot take away
	g.sample(client)
	g.cpu = g.last
	g.all.Go(func() {
		defer client.CloseIdleConnections()
		for ctx.Err() == nil {
			wait(ctx, 200*time.Millisecond)
			g.sample(client)
		}
	})
	g.all.Go(func() {
		for ctx.Err() == nil {
			took, err := l.shake(ctx)
			switch {
			case err == nil:
				g.visits = append(g.visits, took)
			case ctx.Err() == nil:
				g.failed, g.why = g.failed+1, err
			}
			wait(ctx, 20*time.Millisecond)
		}
	})
	return g
}

func (g *gauge) end() reading {
	g.stop()
	g.all.Wait()
	slices.Sort(g.visits)
	g.took = time.Since(g.began)
	g.reading.cpu = time.Duration((g.last - g.cpu) * float64(time.Second))
	return g.reading
}

// sample reads the server's own metrics, and what the kernel says.
func (g *gauge) sample(client *http.Client) {
	if res, err := client.Get("http://" + g.l.metrics + "/metrics"); err == nil {
		g.read(bufio.NewScanner(res.Body))
		_ = res.Body.Close()
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.l.cmd.Process.Pid))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			g.resident = max(g.resident, kib/1024)
		}
	}
}

func (g *gauge) read(metrics *bufio.Scanner) {
	for metrics.Scan() {
		var name string
		var v float64
		if _, err := fmt.Sscan(metrics.Text(), &name, &v); err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			g.goroutines = max(g.goroutines, v)
		case "go_memstats_heap_inuse_bytes":
			g.heap = max(g.heap, v/(1<<20))
		case "go_memstats_stack_inuse_bytes":
			g.stacks = max(g.stacks, v/(1<<20))
		case "process_open_fds":
			g.descriptors = max(g.descriptors, v)
		case "process_cpu_seconds_total":
			g.last = v
		}
	}
}
