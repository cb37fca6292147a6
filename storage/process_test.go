package storage_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatelodge/storage"
)

// Tests with real processes on one disk: what flock, rename and kill -9 do cannot be had in one.

// child is a process that runs one of the functions below on a disk.
type child struct {
	cmd *exec.Cmd
	out *bufio.Reader
	err bytes.Buffer
}

func startChild(t *testing.T, what string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], args...)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+what)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out, c.cmd.Stderr = bufio.NewReader(out), &c.err
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.kill()
		}
	})
	return c
}

// line returns the next line that the child prints.
func (c *child) line(t *testing.T) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v; %s", err, c.err.String())
	}
	return strings.TrimSpace(line)
}

func (c *child) wait(t *testing.T) {
	t.Helper()
	io.Copy(io.Discard, c.out)
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("child: %v; %s", err, c.err.String())
	}
}

// kill is kill -9.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

func runChild(what string) error {
	d, err := storage.OpenDisk(os.Args[1], nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a child never outlives a broken test for long
	defer cancel()
	switch what {
	case "count":
		err = countUp(ctx, d)
	case "section":
		err = enterSections(ctx, d, os.Args[2])
	case "hold":
		err = holdLease(ctx, d)
	case "write":
		err = writeForever(ctx, d)
	default:
		err = fmt.Errorf("no such child: %s", what)
	}
	return errors.Join(err, d.Close())
}

const updatesEach = 25

// countUp increments one object by compare-and-swap.
func countUp(ctx context.Context, d *storage.Disk) error {
	for range updatesEach {
		for {
			data, v, err := d.Get(ctx, "counter/a")
			if err != nil && !errors.Is(err, storage.ErrNotExist) {
				return err
			}
			n, _ := strconv.Atoi(string(data))
			_, err = d.PutIf(ctx, "counter/a", []byte(strconv.Itoa(n+1)), v)
			if err == nil {
				break
			}
			if !errors.Is(err, storage.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

func TestDisk_LosesNoUpdateBetweenProcesses(t *testing.T) {
	dir := t.TempDir()
	var children []*child
	for range 4 {
		children = append(children, startChild(t, "count", dir))
	}
	for _, c := range children {
		c.wait(t)
	}
	data, _, err := openDisk(t, dir).Get(t.Context(), "counter/a")
	if want := strconv.Itoa(4 * updatesEach); err != nil || string(data) != want {
		t.Errorf("counter is %s (%v), want %s", data, err, want)
	}
}

// enterSections takes a lease and checks with a file of its own that nobody else is inside. It notes its fence there.
func enterSections(ctx context.Context, d *storage.Disk, witness string) error {
	for range updatesEach {
		l, err := d.Lease(ctx, "issue/a.example")
		if err != nil {
			return err
		}
		inside, err := os.OpenFile(filepath.Join(witness, "inside"), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		fences, err := os.OpenFile(filepath.Join(witness, "fences"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		fmt.Fprintln(fences, l.Fence())
		err = errors.Join(fences.Close(), inside.Close(), os.Remove(inside.Name()), l.Release(ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

func TestDisk_LeaseExcludesOtherProcessesAndFencesGrow(t *testing.T) {
	dir, witness := t.TempDir(), t.TempDir()
	var children []*child
	for range 4 {
		children = append(children, startChild(t, "section", dir, witness))
	}
	for _, c := range children {
		c.wait(t)
	}
	data, err := os.ReadFile(filepath.Join(witness, "fences"))
	if err != nil {
		t.Fatal(err)
	}
	fences := strings.Fields(string(data))
	if len(fences) != 4*updatesEach {
		t.Errorf("%d sections, want %d", len(fences), 4*updatesEach)
	}
	var last uint64
	for _, f := range fences {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil || n <= last {
			t.Fatalf("fence %s after %d (%v)", f, last, err)
		}
		last = n
	}
	if left := entries(t, dir, "locks/leases"); len(left) > 0 {
		t.Errorf("files of leases left: %q", left)
	}
}

// holdLease takes a lease, says so and keeps it until it is killed.
func holdLease(ctx context.Context, d *storage.Disk) error {
	l, err := d.Lease(ctx, "issue/a.example")
	if err != nil {
		return err
	}
	fmt.Println(l.Fence())
	<-ctx.Done()
	return ctx.Err()
}

func TestDisk_KilledHolderFreesItsLease(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir)
	var last uint64
	for range 5 {
		holder := startChild(t, "hold", dir)
		fence, err := strconv.ParseUint(holder.line(t), 10, 64)
		if err != nil || fence <= last {
			t.Fatalf("the child's fence is %d after %d (%v)", fence, last, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		if _, err := d.Lease(ctx, "issue/a.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("lease that a living child holds: %v", err)
		}
		cancel()
		holder.kill()
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		l, err := d.Lease(ctx, "issue/a.example")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if last = l.Fence(); last <= fence {
			t.Errorf("fence %d after the dead holder's %d", last, fence)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

const soon = 30 * time.Millisecond

func TestDisk_SweepsLeasesOfTheDeadOnly(t *testing.T) {
	dir := t.TempDir()
	dead := startChild(t, "hold", dir)
	dead.line(t)
	dead.kill()
	if left := entries(t, dir, "locks/leases"); len(left) != 1 {
		t.Fatalf("a killed holder leaves %q", left)
	}
	openDisk(t, dir)
	if left := entries(t, dir, "locks/leases"); len(left) > 0 {
		t.Errorf("after opening there is still %q", left)
	}

	living := startChild(t, "hold", dir)
	living.line(t)
	d := openDisk(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := d.Lease(ctx, "issue/a.example"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("opening broke the lease of a living process: %v", err)
	}
}

// pattern is an object whose every part tells which one it is.
func pattern(n byte) []byte { return bytes.Repeat([]byte{'a' + n%26}, 2000+997*int(n%26)) }

func isPattern(data []byte) bool { return len(data) > 0 && bytes.Equal(data, pattern(data[0]-'a')) }

// writeForever writes and deletes objects until it is killed.
func writeForever(ctx context.Context, d *storage.Disk) error {
	fmt.Println("writing")
	for i := 0; ; i++ {
		name := fmt.Sprintf("certs/%d.example", rand.N(20))
		var err error
		if rand.N(10) == 0 {
			err = d.Delete(ctx, name)
		} else {
			_, err = d.Put(ctx, name, pattern(byte(rand.N(26))))
		}
		if err != nil {
			return err
		}
	}
}

func TestDisk_KilledWriterLeavesWholeObjectsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	living := openDisk(t, dir) // shares the disk all the time
	for range 10 {
		writers := []*child{startChild(t, "write", dir), startChild(t, "write", dir)}
		for _, w := range writers {
			w.line(t)
		}
		time.Sleep(rand.N(60 * time.Millisecond)) // the moment of death is what varies
		for _, w := range writers {
			w.kill()
		}
		d := openDisk(t, dir)
		names, err := d.List(t.Context(), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if data, _, err := d.Get(t.Context(), name); err != nil || !isPattern(data) {
				t.Errorf("%s has %d bytes, error %v", name, len(data), err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if left := entries(t, dir, "tmp"); len(left) != 1 {
			t.Errorf("temporary folders %q, want that of the living process alone", left)
		}
		if _, err := living.Put(t.Context(), "certs/living.example", pattern(1)); err != nil {
			t.Errorf("a process that lived through it: %v", err)
		}
	}
}

func entries(t *testing.T, dir, folder string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
