package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gatelodge/proxy/rule"
)

// matchRoutes have patterns beside and below each other.
var matchRoutes = []rule.Match{
	{Paths: []string{"/api/open"}},
	{Paths: []string{"/api/v1/*", "/v1/*"}},
	{Paths: []string{"/api/*"}, Methods: []string{"GET"}},
	{Paths: []string{"/a", "/caf\u00e9/*", "/a b"}},
	{Paths: []string{"/admin/*"}},
	{Methods: []string{"DELETE"}},
	{Paths: []string{"/x/*", "/!/*"}},
}

// slowMatch looks at a path as a list of names, in which escapes were undone.
func slowMatch(path, method string) int {
	names := strings.Split(path, "/")
	for i, m := range matchRoutes {
		if len(m.Methods) > 0 && m.Methods[0] != method && !(m.Methods[0] == "GET" && method == "HEAD") {
			continue
		}
		if len(m.Paths) == 0 {
			return i
		}
		for _, p := range m.Paths {
			want := strings.Split(p, "/")
			below := want[len(want)-1] == "*"
			if below {
				want = want[:len(want)-1]
			}
			if len(names) < len(want) || !below && len(names) != len(want) {
				continue
			}
			same := true
			for k := range want {
				same = same && want[k] == names[k]
			}
			if same {
				return i
			}
		}
	}
	return -1
}

// slowReadings are all the paths that a server could see in that of the target: each of what servers do about escapes, parameters and empty segments is done or not,
// in every order.
func slowReadings(path string) []string {
	steps := []func(string) string{
		func(s string) string { d, _ := url.PathUnescape(s); return d },
		func(s string) string {
			var names []string
			for _, name := range strings.Split(s, "/") {
				names = append(names, strings.SplitN(name, ";", 2)[0])
			}
			return strings.Join(names, "/")
		},
		func(s string) string {
			names := []string{""}
			all := strings.Split(s, "/")
			for i, name := range all {
				if name != "" || i == len(all)-1 {
					names = append(names, name)
				}
			}
			return strings.Join(names, "/")
		},
	}
	out := []string{path}
	for i, a := range steps {
		out = append(out, a(path))
		for k, b := range steps {
			if k == i {
				continue
			}
			out = append(out, b(a(path)))
			for l, c := range steps {
				if l != i && l != k {
					out = append(out, c(b(a(path))))
				}
			}
		}
	}
	return out
}

// FuzzMatch: a request that is not refused goes where every slow reading of its path says, and its path goes out as the one that was judged.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{
		"/", "/api", "/api/", "/api/v1", "/api/v1/x", "/apiv1", "/%61pi/x", "/api%2fx", "/a;x", "/a;/b", "//a", "/x//y", "/caf%c3%a9/x", "/caf\u00e9", "/a%20b", "/..", "/x/..;/a", "/%2e",
		"/admin%3b/x", "/a;%2fb", "/;a/admin", "/%2f%2fadmin/x", "/x%5c", "/%", "/%zz", "/%21/x", "/%252e", "/x\x80",
	} {
		f.Add(s, "GET")
		f.Add("/x"+s, "DELETE")
	}
	var site Site
	for _, m := range matchRoutes {
		site.Routes = append(site.Routes, Route{Match: m})
	}
	p, err := newPlan(&site)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, method string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
			return
		}
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		x := &exchange{r: &http.Request{Method: method, RequestURI: path, URL: u}}
		if x.choose(&p) != nil {
			return
		}
		got := -1
		for i := range p.ways {
			if x.way == &p.ways[i] {
				got = i
			}
		}
		for _, reading := range slowReadings(path) {
			for name := range strings.SplitSeq(reading, "/") {
				if name == "." || name == ".." {
					t.Fatalf("%q has a dot segment as %q", path, reading)
				}
			}
			plain, _ := url.PathUnescape(strings.ReplaceAll(strings.ReplaceAll(reading, "%2F", "%252F"), "%2f", "%252F")) // equivalent spellings are the same path
			if strings.IndexByte(reading, '%') < 0 {
				plain = reading
			}
			if want := slowMatch(plain, method); want != got {
				t.Fatalf("%q: route %d, but read as %q it is %d's", path, got, plain, want)
			}
		}
		if again, _, err := rule.Canonical(x.path); err != nil || again != x.path {
			t.Fatalf("%q: canonical %q, of which the canonical form is %q, %v", path, x.path, again, err)
		}
		was, err1 := url.PathUnescape(path)
		is, err2 := url.PathUnescape(x.path)
		if err1 != nil || err2 != nil || was != is {
			t.Fatalf("%q became %q, which means something else", path, x.path)
		}
		if out := outgoingURL(x.r, x.outgoingPath()).RequestURI(); out != x.path {
			t.Fatalf("%q was judged as %q and goes out as %q", path, x.path, out)
		}
	})
}

// Choosing a route costs nothing for an ordinary path.
func TestChoose_AllocatesNothingForAnOrdinaryPath(t *testing.T) {
	site := Site{Routes: []Route{{Match: rule.Match{Paths: []string{"/api/*"}, Methods: []string{"GET"}}}, {Match: rule.Match{Paths: []string{"/x"}}}}}
	p, err := newPlan(&site)
	if err != nil {
		t.Fatal(err)
	}
	x := testExchange(t)
	if n := testing.AllocsPerRun(100, func() {
		if f := x.choose(&p); f != nil {
			t.Fatal(f)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
