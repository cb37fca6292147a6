package acmeclient

import (
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestRetryAfter_ReadsSecondsAndDates(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"120", 2 * time.Minute, true},
		{" 3 ", 3 * time.Second, true},
		{"0", time.Second, true},
		{"Sat, 21 Nov 2026 12:01:00 GMT", time.Minute, true},
		{"Sat, 21 Nov 2026 11:00:00 GMT", time.Second, true}, // in the past
		{"99999999999", maxRetryAfter, true},
		{"99999999999999999999999", maxRetryAfter, true},
		{"Sat, 21 Nov 2126 12:01:00 GMT", maxRetryAfter, true},
		{"-5", 0, false},
		{"1.5", 0, false},
		{"soon", 0, false},
		{"", 0, false},
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {tt.value}}, now)
		if got != tt.want || ok != tt.ok {
			t.Errorf("%q is %v, %v, wanted %v, %v", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"120", "0", "-1", "99999999999999999999", "Sat, 21 Nov 2026 12:01:00 GMT", "soon", ""} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := retryAfter(http.Header{"Retry-After": {s}}, now)
		if ok && (d < time.Second || d > maxRetryAfter) || !ok && d != 0 {
			t.Errorf("%q is %v, %v", s, d, ok)
		}
	})
}

func TestLinks_ReadsWhatCAsSend(t *testing.T) {
	base, _ := url.Parse("https://ca.test/acme/cert/1")
	for name, tt := range map[string]struct {
		fields []string
		rel    string
		want   []string
	}{
		"quoted":               {[]string{`<https://ca.test/dir>;rel="index"`}, "index", []string{"https://ca.test/dir"}},
		"unquoted, with space": {[]string{`<https://ca.test/up> ; rel=up`}, "up", []string{"https://ca.test/up"}},
		"several in one field": {[]string{`<https://ca.test/a>;rel="alternate", <https://ca.test/b>; rel="alternate"`}, "alternate", []string{"https://ca.test/a", "https://ca.test/b"}},
		"several fields":       {[]string{`</dir>;rel="index"`, `<../alt/2>;rel="alternate"`}, "alternate", []string{"https://ca.test/acme/alt/2"}},
		"several relations":    {[]string{`</x>;rel="up alternate"`}, "alternate", []string{"https://ca.test/x"}},
		"comma in quotes":      {[]string{`</x>;title="a, <b>";rel="help"`}, "help", []string{"https://ca.test/x"}},
		"another relation":     {[]string{`</x>;rel="up"`}, "index", nil},
		"no relation":          {[]string{`</x>`}, "index", nil},
		"broken":               {[]string{`<https://ca.test/x`, `;rel="index"`, `<>;rel=index`}, "index", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := links(http.Header{"Link": tt.fields}, tt.rel, base); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, wanted %q", got, tt.want)
			}
		})
	}
}

func FuzzLinks(f *testing.F) {
	for _, s := range []string{`<https://ca.test/dir>;rel="index"`, `</a>;rel=up, </b>;rel="up"`, `<`, `<>;rel=up`, `</x>;title="a,";rel="help`, `<%zz>;rel=up`} {
		f.Add(s, "up")
	}
	f.Add(`<https://ca.test/cert/1/1>;rel="alternate", </cert/1/2>;rel=alternate;type="application/pem-certificate-chain"`, "alternate")
	base, _ := url.Parse("https://ca.test/")
	f.Fuzz(func(t *testing.T, field, rel string) {
		for _, l := range links(http.Header{"Link": {field}}, rel, base) {
			if u, err := url.Parse(l); err != nil || !u.IsAbs() {
				t.Errorf("%q gives %q", field, l)
			}
		}
	})
}
