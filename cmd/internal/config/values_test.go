package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseDuration_WantsUnits(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30s": 30 * time.Second, "5m": 5 * time.Minute, "12h": 12 * time.Hour, "7d": 7 * day,
		"1h30m": 90 * time.Minute, "1d12h": 36 * time.Hour, "100ms": 100 * time.Millisecond, "1.5h": 90 * time.Minute,
	} {
		got, err := parseDuration(s)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
		again, err := parseDuration(formatDuration(got))
		if err != nil || again != got {
			t.Errorf("%v is written %q and read as %v, %v", got, formatDuration(got), again, err)
		}
	}
	for _, s := range []string{"", "10", "1.5", "-5s", "+5s", "s", "5 s", "d", "-1d", "1d-2h", "1.5d", "5y", "99999d", "10000000h"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseSize_CountsInPowersOfTwo(t *testing.T) {
	for s, want := range map[string]Size{"0": 0, "0KiB": 0, "100B": 100, "64KiB": 64 << 10, "10MiB": 10 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40} {
		got, err := parseSize(s)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
		if again, err := parseSize(got.String()); err != nil || again != got {
			t.Errorf("%d is written %q and read as %v, %v", got, got, again, err)
		}
	}
	for _, s := range []string{"", "64", "64KB", "64kib", "64 KiB", "-1B", "1.5MiB", "8388608TiB", "9223372036854775808B"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseRate_IsACountPerTime(t *testing.T) {
	for s, want := range map[string]Rate{
		"0": {}, "5/s": {5, time.Second}, "250/3h": {250, 3 * time.Hour}, "40/7d": {40, 7 * day}, "100/m": {100, time.Minute}, "1/1h30m": {1, 90 * time.Minute},
	} {
		got, err := parseRate(s)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
		if again, err := parseRate(got.String()); err != nil || again != got {
			t.Errorf("%v is written %q and read as %v, %v", got, got, again, err)
		}
	}
	if got := (Rate{Count: 30, Per: time.Minute}).PerSecond(); got != 0.5 {
		t.Errorf("30/m is %v/s", got)
	}
	for _, s := range []string{"", "5", "5/", "/s", "0/s", "-1/s", "5/x", "5/0s", "1/2/s", "5/-1s"} {
		if got, err := parseRate(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseFraction_IsBetweenNothingAndAll(t *testing.T) {
	if got, err := parseFraction("2/3"); err != nil || got != (Fraction{2, 3}) || got.String() != "2/3" || got.Float() != 2.0/3 {
		t.Errorf("2/3 is %v, %v", got, err)
	}
	for _, s := range []string{"", "1", "0/3", "3/3", "4/3", "1/0", "-1/3", "a/b", "1/2/3", "0.5"} {
		if got, err := parseFraction(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParsePercent_IsAWholeNumber(t *testing.T) {
	for _, s := range []string{"0%", "30%", "100%"} {
		if got, err := parsePercent(s); err != nil || got.String() != s {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "%", "30", "101%", "-1%", "1.5%"} {
		if got, err := parsePercent(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestParseTarget_IsSchemeHostAndPort(t *testing.T) {
	for s, want := range map[string]string{
		"http://127.0.0.1:3000":   "http://127.0.0.1:3000",
		"http://127.0.0.1:3000/":  "http://127.0.0.1:3000",
		"https://app.internal":    "https://app.internal:443",
		"http://[::1]:80":         "http://[::1]:80",
		"http://my_service:8080":  "http://my_service:8080",
		"unix:///run/app.sock":    "unix:///run/app.sock",
		"@app":                    "@app",
		"":                        "",
		"h2c://127.0.0.1":         "h2c://127.0.0.1:80",
		"http://APP.example:3000": "http://APP.example:3000",
	} {
		if got, err := parseTarget(s); err != nil || got.String() != want {
			t.Errorf("%q is %v, %v; want %s", s, got, err, want)
		}
	}
	for _, s := range []string{
		"@", "app:3000", "3000", "ftp://a", "http:/a", "http://", "http://:80", "http://a:0", "http://a:65536", "http://a:", "http://a:x", "http://a b",
		"http://a/path", "http://a?", "http://a?q", "http://a#", "http://a#f", "http://u@a", "http://u:p@a", "http://*.a", "unix://run/app.sock", "http://[::1", "://a",
	} {
		if got, err := parseTarget(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestSecret_IsAReferenceThatIsReadWhenNeeded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GATELODGE_TEST_SECRET", "hunter2")
	for _, ref := range []string{"env:GATELODGE_TEST_SECRET", "file:" + path} {
		s, err := parseSecret(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(); err != nil || got != "hunter2" {
			t.Errorf("%s is %q, %v", ref, got, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); strings.Contains(shown, "hunter2") {
			t.Errorf("the secret is printed: %s", shown)
		}
	}
	for _, ref := range []string{"env:GATELODGE_TEST_NO_SUCH", "file:" + path + ".no"} {
		s, err := parseSecret(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(); err == nil {
			t.Errorf("%s is %q", ref, got)
		}
	}
	if got, err := (Secret{}).Resolve(); got != "" || err != nil {
		t.Errorf("no secret is %q, %v", got, err)
	}
	for _, s := range []string{"hunter2", "env:", "file:", "file:relative", "http://hunter2", "hunter2:x"} {
		if _, err := parseSecret(s); err == nil {
			t.Errorf("%q is taken for a reference", s)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestNearest_FindsSlipsOnly(t *testing.T) {
	valid := []string{"hosts", "header_bytes", "handshake_timeout", "http", "https", "to", "trusted_proxies"}
	for s, want := range map[string]string{
		"host": "hosts", "hots": "hosts", "HOSTS": "hosts", "headerbytes": "header_bytes", "header-bytes": "header_bytes", "htpp": "http", "trusted": "trusted_proxies",
		"ot": "to", "xyzzy": "", "": "", "z": "", strings.Repeat("h", 1000): "",
	} {
		if got := nearest(s, valid); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", s, got, want)
		}
	}
}

func TestFaults_CanBeFoundOneByOne(t *testing.T) {
	_, err := Parse("a.toml", []byte("x = 1\ny = 2"))
	var one *Fault
	if !errors.As(err, &one) || one.Place() != "a.toml:1:1" {
		t.Errorf("the first fault is %v", one)
	}
}
