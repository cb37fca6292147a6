package memo

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMemo_RemembersForATimeAndWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New[int, string](100)
		m.Put(0, "a", time.Now().Add(time.Minute))
		if v, ok := m.Get(0); !ok || v != "a" {
			t.Errorf("%q, %v", v, ok)
		}
		time.Sleep(time.Minute)
		if v, ok := m.Get(0); ok {
			t.Errorf("%q is remembered after its time", v)
		}
		for i := range 1000 {
			m.Put(i, "b", time.Now().Add(time.Hour))
			if _, ok := m.Get(i); !ok {
				t.Fatalf("%d is not remembered", i)
			}
		}
		n := 0
		m.Each(func(int, string) { n++ })
		if n != 100 {
			t.Errorf("%d are remembered, want 100", n)
		}
		if n := m.Count(func(v string) bool { return v == "b" }); n != 100 {
			t.Errorf("%d are counted, want 100", n)
		}
		if n := m.Count(func(v string) bool { return v == "a" }); n != 0 {
			t.Errorf("%d are counted that are not there", n)
		}
		time.Sleep(time.Hour)
		m.Each(func(i int, _ string) { t.Errorf("%d is remembered after its time", i) })
		if n := m.Count(func(string) bool { return true }); n != 0 {
			t.Errorf("%d are counted after their time", n)
		}
		m.Put(5, "c", time.Now().Add(time.Hour))
		m.Forget(5)
		if _, ok := m.Get(5); ok {
			t.Error("what was forgotten is remembered")
		}
	})
}
