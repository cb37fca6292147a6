package main

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMeasures_SayWhatTheyMeasured runs all of them with few names. Times are not looked at, counts are.
func TestMeasures_SayWhatTheyMeasured(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"-inside", "-names", "600", "-budget", "2", "-seconds", "0.05"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`index of 600 names made`, `heap per resident name: \d+ B`, `600 names known after`, `600 of them loaded`, `with room, round 5, beside 4 that load cold names`, `evicting, p99 beside 4 that load cold names: \d+\.\d\dx alone`,
		`1\.000 reads of certificates and 1\.\d+ reads of any kind`, `start of the manager with 600 names stored`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, bad := range [][]string{{"-names", "1"}, {"-measure", "nothing", "-names", "100"}, {"-seconds", "0"}} {
		if err := run(t.Context(), append(bad, "-inside"), &out); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestHistogram_IsExactToTwoPercent(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 1000, 123456, time.Second, time.Hour, math.MaxInt64} {
		h := new(histogram)
		h.add(1)
		h.add(d)
		h.add(math.MaxInt64)
		if got := h.quantile(0.5); got > max(d, 1) || float64(got) < 0.98*float64(d) {
			t.Errorf("%v became %v", d, got)
		}
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
