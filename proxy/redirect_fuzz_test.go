package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzRedirect: whatever the path and query, the client is sent to the host that is written in the configuration, or to its own.
func FuzzRedirect(f *testing.F) {
	targets := []string{"https://example.com/new/{rest}", "/{rest}", "{path}", "https://example.com{path}", "https://{host}/?to={path}&r={rest}", "/x/{rest}#{rest}"}
	for _, s := range []string{"/old/a", "/old//evil.test", "/old/%2f%2fevil.test", "/old/.evil.test", "/old/@evil.test", "/old/:8080", "/old/a%0d%0ab", "//evil.test", "/old/{host}", "/old/\u00e9?x"} {
		for i := range targets {
			f.Add(s, "a=b", uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, path, query string, which uint8) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path+query, "#\r\n \t") || strings.Contains(path, "?") {
			return
		}
		target := path
		if query != "" {
			target += "?" + query
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		to := targets[int(which)%len(targets)]
		p, err := newPlan(&Site{Routes: []Route{{Match: matchRoutes[4], Redirect: &Redirect{To: to}}, {Redirect: &Redirect{To: to}}}})
		if err != nil {
			t.Fatal(err)
		}
		w := &kept{header: http.Header{}}
		x := &exchange{r: &http.Request{Method: "GET", RequestURI: target, URL: u, Header: http.Header{}}, host: "a.test", out: w}
		if checkTarget(x.r) != nil || x.choose(&p) != nil {
			return
		}
		x.redirect(&x.way.action)
		location := w.header.Get("Location")
		beforeQuery, _, _ := strings.Cut(location, "?") // the client's query goes on byte by byte
		for i, c := range []byte(location) {
			if c <= ' ' || c == 0x7f || c == '\\' && i < len(beforeQuery) {
				t.Fatalf("%q to %q: byte %q", target, location, c)
			}
		}
		at, err := url.Parse(location)
		if err != nil {
			t.Fatalf("%q to %q: %v", target, location, err)
		}
		want := map[bool]string{true: "", false: "example.com"}[strings.HasPrefix(to, "/") || strings.HasPrefix(to, "{path}")]
		if strings.Contains(to, "{host}") {
			want = "a.test"
		}
		if at.Host != want || at.User != nil || strings.HasPrefix(location, "//") {
			t.Fatalf("%s: %q sends to %q, to the host %q", to, target, location, at.Host)
		}
	})
}

// kept is a ResponseWriter that keeps the header.
type kept struct{ header http.Header }

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) Write(p []byte) (int, error) { return len(p), nil }
func (k *kept) WriteHeader(int)             {}

func BenchmarkChoose(b *testing.B) {
	site := Site{}
	for i := range 50 {
		site.Routes = append(site.Routes, Route{Match: matchRoutes[1+i%4]})
	}
	p, err := newPlan(&site)
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/api/v1/things/17", "/nobody/has/this/path", "/nobody/a%2fb"} {
		b.Run(path, func(b *testing.B) {
			x := &exchange{r: &http.Request{Method: "POST", RequestURI: path}}
			b.ReportAllocs()
			for b.Loop() {
				if f := x.choose(&p); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}
