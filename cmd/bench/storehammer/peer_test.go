//go:build peers

package main

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestMain(m *testing.M) {
	if isWorker() {
		if err := work(context.Background()); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// strength multiplies what is done; 1 takes under a minute for both tests.
func strength(t *testing.T) int {
	text, ok := os.LookupEnv("GATELODGE_HAMMER")
	if !ok {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("GATELODGE_HAMMER is %q: write how many times as long it should take", text)
	}
	return n
}

func onVersitygw(t *testing.T, h hammer) *report {
	t.Helper()
	cfg := storagetest.StartVersitygw(t).Config()
	cfg.Lease = storage.LeaseTimes{Lease: 1500 * time.Millisecond}
	h.Bucket, h.Processes = cfg, 8
	report, err := h.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	return report
}

func TestPeerStorehammer_LosesNoUpdateOnVersitygw(t *testing.T) {
	n := strength(t)
	report := onVersitygw(t, hammer{Sections: 300 * n, Kills: 4 * n, Pauses: 3 * n})
	if err := report.verdict(); err != nil {
		t.Error(err)
	}
}

func TestPeerStorehammer_LosesUpdatesWithoutCompareAndSwap(t *testing.T) {
	n := strength(t)
	report := onVersitygw(t, hammer{Sections: 150 * n, Kills: n, Pauses: 3 * n, WithoutCAS: true})
	if err := report.verdict(); err != nil {
		t.Error(err)
	}
}
