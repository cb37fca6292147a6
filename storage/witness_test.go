package storage

import (
	"context"
	"testing"
	"time"
)

func TestWitness_KnowsTheDeadOfItsOwnFolderOnly(t *testing.T) {
	dir := t.TempDir()
	a, b := mustWitness(t, dir), mustWitness(t, dir)
	elsewhere := mustWitness(t, t.TempDir())
	if b.sawDie(a.name()) || b.sawDie(b.name()) {
		t.Error("a living process was taken for dead")
	}
	for _, name := range []string{"", "x", b.host + "/", b.host + "/../x", "other-boot/" + a.own} {
		if b.sawDie(name) {
			t.Errorf("something is known of %q", name)
		}
	}
	_ = a.file.Close() // as the kernel does at kill -9: the file stays, its lock goes
	if !b.sawDie(a.name()) {
		t.Error("a dead process was taken for alive")
	}
	if elsewhere.sawDie(a.name()) {
		t.Error("another folder knows of it")
	}
	c := mustWitness(t, dir) // sweeps
	if !c.sawDie(a.name()) || c.sawDie(b.name()) {
		t.Error("after the sweep the dead lives or the living is dead")
	}
}

func mustWitness(t *testing.T, dir string) *witness {
	t.Helper()
	w, err := openWitness(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.close() })
	return w
}

func TestCASLease_OfAProcessThatDiedOnThisHostIsFreeAtOnce(t *testing.T) {
	dir := t.TempDir()
	dead, alive := mustWitness(t, dir), mustWitness(t, dir)
	objects := &line{objects: NewMemory()}
	times := LeaseTimes{Lease: 30 * time.Second, Beat: 10 * time.Second, Poll: 50 * time.Millisecond}
	first := newCASLeases(objects, times, nil, dead)
	second := newCASLeases(objects, times, nil, alive)
	held, err := first.Lease(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := second.Lease(short, "name"); err == nil {
		t.Fatal("a living holder lost its lease")
	}
	_ = dead.file.Close()
	begin := time.Now()
	next, err := second.Lease(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the lease of a dead process was free after %v", took)
	}
	if next.Fence() <= held.Fence() {
		t.Errorf("fence went from %d to %d", held.Fence(), next.Fence())
	}
	_ = next.Release(context.Background())
	_ = second.close(nil)
	_ = first.close(nil)
}
