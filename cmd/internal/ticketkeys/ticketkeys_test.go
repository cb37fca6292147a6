package ticketkeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a TLS server that takes keys.
type node struct {
	mu   sync.Mutex
	keys [][32]byte
	*Keeper
}

func startNode(t *testing.T, store storage.Store) *node {
	n := &node{}
	n.Keeper = New(Config{Store: store, Logger: zap.NewNop(), Set: func(keys [][32]byte) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.keys = slices.Clone(keys)
		return nil
	}})
	n.Start(t.Context())
	return n
}

func (n *node) now() [][32]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.keys
}

func TestKeeper_NoNodeSealsWithAKeyThatAnotherDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		var nodes []*node
		sealed := map[[32]byte]time.Time{} // when each key sealed last
		for minute := range 4 * 24 * 60 {
			if minute%77 == 0 && len(nodes) < 5 {
				nodes = append(nodes, startNode(t, store))
			}
			synctest.Wait()
			for _, a := range nodes {
				seals := a.now()[0]
				sealed[seals] = time.Now()
				for _, b := range nodes {
					if !slices.Contains(b.now(), seals) {
						t.Fatalf("minute %d: a ticket of one node does not open at another", minute)
					}
				}
			}
			for key, last := range sealed {
				if time.Since(last) < 24*time.Hour && !slices.Contains(nodes[0].now(), key) {
					t.Fatalf("minute %d: a ticket of %v ago does not open", minute, time.Since(last))
				}
			}
			time.Sleep(time.Minute)
		}
		if len(sealed) != 12 {
			t.Errorf("%d keys in four days; want one for each 8 h", len(sealed))
		}
		if n := len(nodes[0].now()); n != kept {
			t.Errorf("%d keys in use", n)
		}
		for _, n := range nodes {
			n.Close()
		}
	})
}

func TestKeeper_AsksStorageRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := storagetest.NewFaulty(storage.NewMemory())
		n := startNode(t, faulty)
		time.Sleep(10 * 24 * time.Hour)
		n.Close()
		if gets := faulty.Count(storagetest.Get, object); gets > 10*32 {
			t.Errorf("%d reads in ten days", gets)
		}
		if lists := faulty.Count(storagetest.List, ""); lists > 0 {
			t.Errorf("%d listings", lists)
		}
	})
}

func TestKeeper_KeysOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		n := startNode(t, store)
		before := n.now()[0]
		n.Close()
		time.Sleep(20 * time.Hour)
		n = startNode(t, store)
		if got := n.now(); got[0] != before {
			t.Error("after a restart another key seals, which other nodes may not have seen")
		}
		time.Sleep(lead + time.Minute)
		if got := n.now(); got[0] == before || !slices.Contains(got, before) {
			t.Error("the old key was not rotated, or its tickets are worthless")
		}
		n.Close()
	})
}

func TestKeeper_TouchesNothingWhileStorageDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		faulty := storagetest.NewFaulty(store)
		faulty.Set(storagetest.Fault{Hang: true})
		late := startNode(t, faulty)
		if late.now() != nil {
			t.Error("keys came from nowhere")
		}
		there := startNode(t, store)
		time.Sleep(3 * time.Hour)
		faulty.Set()
		time.Sleep(2 * retryMax)
		if !slices.Equal(late.now(), there.now()) {
			t.Error("the node did not take the keys when storage came back")
		}
		seals := there.now()[0]
		faulty.Set(storagetest.Fault{Op: storagetest.Get})
		time.Sleep(20 * time.Hour) // two rotations
		if there.now()[0] == seals {
			t.Error("no rotation")
		}
		if !slices.Contains(there.now(), late.now()[0]) {
			t.Error("tickets of the node without storage are not taken by the others")
		}
		if n := faulty.Count(storagetest.PutIf, object) + faulty.Count(storagetest.Put, ""); n > 0 {
			t.Errorf("%d writes because of reads that failed", n)
		}
		faulty.Set()
		time.Sleep(2 * retryMax)
		if !slices.Equal(late.now(), there.now()) {
			t.Error("the node did not catch up")
		}
		late.Close()
		there.Close()
	})
}

func TestKeeper_MakesNewKeysForDamagedOnes(t *testing.T) {
	for what, data := range map[string]string{
		"no JSON": "garbage", "no key": `{"keys":[]}`, "a short key": `{"keys":[{"from":"2026-01-01T00:00:00Z","key":"AAAA"}]}`,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storage.NewMemory()
				if _, err := store.Put(t.Context(), object, []byte(data)); err != nil {
					t.Fatal(err)
				}
				n := startNode(t, store)
				defer n.Close()
				if len(n.now()) != 1 {
					t.Errorf("%d keys", len(n.now()))
				}
				if _, _, err := store.Get(t.Context(), "quarantine/"+object); err != nil {
					t.Errorf("what was damaged: %v", err)
				}
			})
		})
	}
}

func TestKeeper_KeysOfASealThatIsMissingStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := storagetest.NewFaulty(storage.NewMemory())
		faulty.Set(storagetest.Fault{Op: storagetest.Get, Err: &storage.KeyError{Name: object, ID: "other"}})
		n := startNode(t, faulty)
		defer n.Close()
		time.Sleep(time.Hour)
		if n.now() != nil || faulty.Count(storagetest.PutIf, object) > 0 {
			t.Error("keys that cannot be opened here were taken for absent")
		}
	})
}

func TestKeySet_DoesNotBelieveClocksThatAreFarOff(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	set := func(from ...time.Duration) (s keySet) {
		for i, d := range from {
			key := [32]byte{byte(i + 1)}
			s.Keys = append(s.Keys, ticketKey{From: now.Add(d), Key: key[:]})
		}
		return s
	}
	fresh := func() [32]byte { return [32]byte{99} }
	for _, c := range []struct {
		name  string
		set   keySet
		due   bool
		seals byte // the first byte of the key that seals afterwards
		keys  int
	}{
		{"nothing stored: the first key seals at once", set(), true, 99, 1},
		{"one hour old: nothing to do", set(-time.Hour), false, 1, 1},
		{"its time is nearly over: a next one that does not seal yet", set(-period + lead), true, 1, 2},
		{"a next one is there already", set(time.Minute, -period), false, 2, 2},
		{"older ones go", set(-8*time.Hour, -16*time.Hour, -24*time.Hour, -32*time.Hour, -40*time.Hour), true, 1, 5},
		{"somebody's clock is years ahead: dropped with the next new key", set(9000*time.Hour, -8*time.Hour), true, 2, 2},
		{"somebody's clock is years ahead: until then it opens", set(9000*time.Hour, -time.Hour), false, 2, 2},
		{"our clock is years behind: nothing is written", set(9000*time.Hour, 8992*time.Hour), false, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, due := c.set.rotated(now, fresh)
			if due != c.due || len(got.Keys) != c.keys {
				t.Errorf("due %v, %d keys; want %v, %d", due, len(got.Keys), c.due, c.keys)
			}
			if seals := got.inUse(now)[0][0]; seals != c.seals {
				t.Errorf("key %d seals, want %d", seals, c.seals)
			}
			if wait := got.nextLook(now, 0.5); wait <= 0 || wait > lookAgain {
				t.Errorf("next look in %v", wait)
			}
		})
	}
}

func TestTicketKey_PrintsNothingOfItself(t *testing.T) {
	k := ticketKey{Key: bytes.Repeat([]byte("secret.."), 4)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if out := fmt.Sprintf(verb, keySet{Keys: []ticketKey{k}}); strings.Contains(out, "secret") || strings.Contains(out, "736563") || strings.Contains(out, "115") {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := json.Marshal(keySet{Keys: []ticketKey{{From: time.Unix(1, 0).UTC(), Key: make([]byte, 32)}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":[{"key":"AAAA"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := decode(data)
		if err != nil {
			if _, ok := errors.AsType[*storage.CorruptError](err); !ok {
				t.Errorf("damage is told as %v", err)
			}
			return
		}
		now := time.Now()
		next, _ := set.rotated(now, newKey)
		if len(set.inUse(now)) == 0 || len(next.inUse(now)) == 0 {
			t.Error("no key to seal with")
		}
	})
}
