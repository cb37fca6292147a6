package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gatelodge/storage"
)

// hammer is one run.
type hammer struct {
	Bucket        storage.S3Config // with Lease.Lease alone set
	Processes     int
	Sections      int
	Kills, Pauses int
	WithoutCAS    bool

	task    string
	events  chan event
	workers map[*worker]bool // that were not killed by us
	ended   map[*worker]bool
	report  report
	wrote   map[string]bool // IDs of writes that were acknowledged

	paused    *worker // who stands still, until resume
	resume    <-chan time.Time
	calmUntil time.Time // no fault before
}

// An event is a line that a worker said, or its end (nothing said).
type event struct {
	from *worker
	what string
	write
}

type worker struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	stop   func() // closes its standard input
	done   chan struct{}
}

// run hammers until there are enough sections and faults, and compares.
func (h *hammer) run(ctx context.Context) (*report, error) {
	h.Bucket.Lease = times(h.Bucket.Lease.Lease)
	s, err := storage.OpenS3(ctx, h.Bucket, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.SelfTest(ctx); err != nil {
		return nil, err
	}
	if err := s.Delete(ctx, "history"); err != nil {
		return nil, err
	}
	witness, err := os.MkdirTemp("", "storehammer")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(witness)
	text, err := json.Marshal(task{Bucket: h.Bucket, WithoutCAS: h.WithoutCAS, Witness: filepath.Join(witness, "inside")})
	if err != nil {
		return nil, err
	}
	h.task, h.events, h.wrote = string(text), make(chan event, 64), make(map[string]bool)
	h.report = report{WithoutCAS: h.WithoutCAS}
	if err := h.strike(ctx); err != nil {
		return nil, err
	}
	data, _, err := s.Get(ctx, "history")
	if err != nil {
		return nil, err
	}
	history, err := parseHistory(data)
	if err != nil {
		return nil, err
	}
	h.report.compare(history, h.wrote)
	return &h.report, s.Delete(ctx, "history")
}

// strike starts the workers, and kills and stops holders in turn.
func (h *hammer) strike(ctx context.Context) (err error) {
	h.workers, h.ended = make(map[*worker]bool), make(map[*worker]bool)
	defer func() { err = errors.Join(err, h.stopAll()) }()
	for range h.Processes {
		if err := h.start(); err != nil {
			return err
		}
	}
	for h.paused != nil || len(h.wrote) < h.Sections || h.faultsLeft() {
		select {
		case e := <-h.events:
			h.note(e)
			if h.ended[e.from] {
				return fmt.Errorf("a process ended by itself: %s", e.from.stderr.String())
			}
			if e.what == saysInside && h.paused == nil && time.Now().After(h.calmUntil) {
				if err := h.hit(e.from); err != nil {
					return err
				}
			}
		case <-h.resume:
			h.paused.cmd.Process.Signal(syscall.SIGCONT)
			h.paused, h.resume = nil, nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (h *hammer) faultsLeft() bool { return h.report.Kills < h.Kills || h.report.Pauses < h.Pauses }

// hit kills or stops a holder: whichever has been done less.
func (h *hammer) hit(holder *worker) error {
	if !h.faultsLeft() {
		return nil
	}
	h.calmUntil = time.Now().Add(h.Bucket.Lease.Lease / 2)
	if h.report.Pauses < h.Pauses && (h.report.Pauses < h.report.Kills || h.report.Kills == h.Kills) {
		h.report.Pauses++
		h.paused, h.resume = holder, time.After(2*h.Bucket.Lease.Lease+500*time.Millisecond)
		return holder.cmd.Process.Signal(syscall.SIGSTOP)
	}
	h.report.Kills++
	holder.cmd.Process.Kill()
	h.hearOut(holder)
	delete(h.workers, holder)
	return h.start()
}

func (h *hammer) note(e event) {
	switch e.what {
	case "":
		h.ended[e.from] = true
	case saysWrote:
		h.wrote[e.ID] = true
	case saysRefused:
		h.report.Refused++
	case saysUnknown:
		h.report.Unknown++
	case saysOverlap:
		if h.paused == nil { // who stands still is inside all the time
			h.report.Overlaps++
		}
	}
}

func (h *hammer) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w := &worker{cmd: exec.Command(self), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), workerEnv+"="+h.task)
	w.cmd.Stderr = &w.stderr
	in, err := w.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	w.stop = sync.OnceFunc(func() { in.Close() })
	go func() { // until the process ends
		defer close(w.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			e := event{from: w}
			if _, err := fmt.Sscanf(lines.Text(), "%s %d %s", &e.what, &e.Fence, &e.ID); err == nil {
				h.events <- e
			}
		}
		w.cmd.Wait()
		h.events <- event{from: w}
	}()
	h.workers[w] = true
	return nil
}

// hearOut takes events, of others too, until the worker has ended: what it had said before its end counts.
func (h *hammer) hearOut(w *worker) {
	for !h.ended[w] {
		h.note(<-h.events)
	}
	<-w.done
	w.stop()
}

// stopAll lets the workers finish what they have begun.
func (h *hammer) stopAll() error {
	for w := range h.workers {
		w.cmd.Process.Signal(syscall.SIGCONT)
		w.stop()
	}
	patience := time.AfterFunc(time.Minute, func() {
		for w := range h.workers {
			w.cmd.Process.Kill()
		}
	})
	defer patience.Stop()
	var said []string
	for w := range h.workers {
		h.hearOut(w)
		if w.cmd.ProcessState.ExitCode() != 0 {
			said = append(said, w.stderr.String())
		}
	}
	if len(said) > 0 {
		return fmt.Errorf("processes failed: %s", strings.Join(said, "; "))
	}
	return nil
}
