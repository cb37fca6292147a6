//go:build peers

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPeerCompare_MeasuresEachRowAtEachPeer(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	o, err := parse([]string{"-rounds", "1", "-time", "50ms", "-warm", "10ms", "-idle", "20", "-log", "both"})
	if err != nil {
		t.Fatal(err)
	}
	o.Out = out
	if err := compare(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range o.Peers {
		if n := strings.Count(string(table), "| "+peer+" "); n != 2*len(rowNames()) {
			t.Errorf("%d rows of %s, want %d:\n%s", n, peer, 2*len(rowNames()), table)
		}
	}
}

func TestPeerCompare_RefusesWhatIsNotBounded(t *testing.T) {
	for _, args := range []string{"-rounds 1000", "-time 2h", "-idle 1000000", "-rows nothing", "-peers nobody", "-log perhaps"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
	if o, err := parse(nil); err != nil || o.Time != 2*time.Second {
		t.Errorf("defaults: %+v, %v", o, err)
	}
}
