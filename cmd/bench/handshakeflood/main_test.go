package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The processes of clients are this test's binary.
func TestMain(m *testing.M) {
	if order := os.Getenv(crowdVariable); order != "" {
		if err := beCrowd(order, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestRun_CountsWhatAFloodCosts runs small floods. Times are not looked at, counts are.
func TestRun_CountsWhatAFloodCosts(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-handshakes", "60", "-at-once", "30", "-quiet", "200ms", "-cases", "unknown,denied-one,backoff-one"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`unknown: names that no site claims; 60 handshakes, 30 at once`,
		`denied-one: .*\n.*0 served, 60 got an alert.*\n +ask calls 1, orders 0, accept errors 0`,
		`backoff-one: .*\n.*0 served, 60 got an alert.*\n +ask calls 1, orders 1, accept errors 0`,
		`during: \d+ goroutines, heap \d+ MiB, stacks \d+ MiB, RSS \d+ MiB, \d+ descriptors`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestRun_RefusesWhatIsNotBounded(t *testing.T) {
	for _, args := range []string{"-handshakes 0", "-handshakes 100000000", "-at-once 0", "-cases nothing"} {
		if err := run(t.Context(), strings.Fields(args), &strings.Builder{}); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}
