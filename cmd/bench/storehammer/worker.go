package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"time"

	"gatelodge/storage"
)

// workerEnv makes the program one of those that compete: it holds a task in JSON.
const workerEnv = "STOREHAMMER_TASK"

// A task is what a worker does.
type task struct {
	Bucket     storage.S3Config
	WithoutCAS bool
	Witness    string // a local file: who is inside has it locked
}

func isWorker() bool { return os.Getenv(workerEnv) != "" }

// What a worker says, a line each, with the fence and the write's ID after it.
const (
	saysInside  = "inside"  // has the lease and has read the object
	saysWrote   = "wrote"   // the write was acknowledged
	saysRefused = "refused" // compare-and-swap or a fence stood against it
	saysUnknown = "unknown" // another error
	saysOverlap = "overlap" // came inside while another process was
)

// work goes on until the standard input ends.
func work(ctx context.Context) error {
	var t task
	if err := json.Unmarshal([]byte(os.Getenv(workerEnv)), &t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	s, err := storage.OpenS3(ctx, t.Bucket, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process
		os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	for n := 0; ctx.Err() == nil; n++ {
		if err := t.section(ctx, s, strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(n)); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
		}
	}
	return nil
}

// section adds one line to the object.
func (t *task) section(ctx context.Context, s *storage.S3, id string) error {
	lease, err := s.Lease(ctx, "history")
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what is begun is finished
	defer lease.Release(ctx)
	w := write{Fence: lease.Fence(), ID: id}
	leave, err := t.enter(w)
	if err != nil {
		return err
	}
	defer leave()
	data, v, err := s.Get(ctx, "history")
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	history, err := parseHistory(data)
	if err != nil {
		return err
	}
	if n := len(history); n > 0 && history[n-1].Fence > w.Fence {
		say(saysRefused, w)
		return nil
	}
	say(saysInside, w)
	time.Sleep(10*time.Millisecond + rand.N(30*time.Millisecond))
	// The lease's context is not looked at again: a pause can come after any look. Compare-and-swap has to do.
	if t.WithoutCAS {
		_, err = s.Put(ctx, "history", append(data, w.String()...))
	} else {
		_, err = s.PutIf(ctx, "history", append(data, w.String()...), v)
	}
	switch {
	case err == nil:
		say(saysWrote, w)
	case errors.Is(err, storage.ErrConflict):
		say(saysRefused, w)
	default:
		say(saysUnknown, w)
	}
	return nil
}

// enter locks the witness if nobody has it.
func (t *task) enter(w write) (leave func(), err error) {
	f, err := os.OpenFile(t.Witness, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		say(saysOverlap, w)
	}
	return func() { f.Close() }, nil
}

// say is one write to the standard output, so that a line is whole or not there when the process is killed.
func say(what string, w write) { os.Stdout.WriteString(what + " " + w.String()) }
