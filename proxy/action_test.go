package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/rule"
)

func TestRoute_ChangesThePathOnItsWayToTheUpstream(t *testing.T) {
	p := routed(t,
		proxy.Route{Match: paths("/api/*"), Strip: "/api"},
		proxy.Route{Match: paths("/new/*", "/one"), Rewrite: "/v2/{rest}"},
		proxy.Route{Match: paths("/below/*"), Rewrite: "/all{path}"},
	)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for target, want := range map[string]string{
			"/api/x/y?q=1": "/x/y?q=1", "/api": "/", "/api/": "/", "/api/a%2fb%41": "/a%2FbA", "/api//x": "//x", "/api?": "/?",
			"/new/x": "/v2/x", "/new/{rest}/%7Brest%7D": "/v2/%7Brest%7D/%7Brest%7D", "/new": "/v2/", "/one?a": "/v2/?a", "/below/x": "/all/below/x", "/apix": "/apix",
		} {
			res, _ := proxytest.Get(t, p.Client(mode), mode.URL("a.test", target))
			if got := res.Header.Get("X-Got"); got != want {
				t.Errorf("%s went on as %s, want %s", target, got, want)
			}
		}
	})
}

func TestRoute_RedirectsWithoutLettingTheClientChooseTheHost(t *testing.T) {
	p := routed(t,
		proxy.Route{Match: paths("/old/*"), Redirect: &proxy.Redirect{To: "https://example.com/new/{rest}", Status: 301}},
		proxy.Route{Match: paths("/local/*"), Redirect: &proxy.Redirect{To: "/{rest}", Status: 308}},
		proxy.Route{Match: paths("/login/*"), Redirect: &proxy.Redirect{To: "https://sso.test/?back=https://{host}{path}&x=1"}},
		proxy.Route{Match: paths("/tls/*"), Redirect: &proxy.Redirect{To: "https://{host}:8443{path}"}},
		proxy.Route{Match: paths("/gone"), Respond: &proxy.Response{Status: 410}},
		proxy.Route{Match: paths("/robots.txt"), Respond: &proxy.Response{Status: 200, Body: "User-agent: *\n"}},
	)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			target, location string
			status           int
		}{
			{"/old/a/b?q=1", "https://example.com/new/a/b?q=1", 301}, {"/old", "https://example.com/new/", 301}, {"/old/%0d%0aX:y", "", 400},
			{"/old/{host}%7bpath%7d", "https://example.com/new/%7Bhost%7D%7Bpath%7D", 301}, {"/old/.evil.test", "https://example.com/new/.evil.test", 301},
			{"/local//evil.test/x", "/evil.test/x", 308}, {"/local/%2fevil.test", "/%2Fevil.test", 308}, {"/local/x", "/x", 308},
			{"/login/a%26b&c", "https://sso.test/?back=https://a.test%2Flogin%2Fa%2526b%26c&x=1", 302}, {"/tls/x", "https://a.test:8443/tls/x", 302},
			{"/gone", "", 410}, {"/robots.txt", "", 200},
		} {
			res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", c.target))
			if res.StatusCode != c.status || res.Header.Get("Location") != c.location {
				t.Errorf("%s: %d to %q, want %d to %q", c.target, res.StatusCode, res.Header.Get("Location"), c.status, c.location)
			}
			if c.target == "/robots.txt" && (body != "User-agent: *\n" || res.Header.Get("Content-Type") != "text/plain; charset=utf-8") {
				t.Errorf("robots.txt: %q %v", body, res.Header)
			}
		}
	})
}

func TestRoute_RefusesWhatItCannotDo(t *testing.T) {
	redirect := func(to string) proxy.Route { return proxy.Route{Redirect: &proxy.Redirect{To: to}} }
	headers := func(h proxy.Headers) proxy.Route { return proxy.Route{Headers: &h} }
	set := func(name, value string) proxy.Route {
		return headers(proxy.Headers{Set: map[string]string{name: value}})
	}
	answer := func(name, value string) proxy.Route {
		return headers(proxy.Headers{SetResponse: map[string]string{name: value}})
	}
	for i, c := range []struct {
		route proxy.Route
		ok    bool
	}{
		{redirect("/x/{rest}"), true}, {redirect("{path}"), true}, {redirect("https://x.test{path}"), true}, {redirect("https://{host}/"), true}, {redirect("/{{x}}"), true},
		{redirect("https://x.test{rest}"), false}, {redirect("{rest}"), false}, {redirect("//x.test/"), false}, {redirect("https:{path}"), false}, {redirect("javascript:{rest}"), false},
		{redirect("https://u:p@x.test/"), false}, {redirect("/{env.SECRET}"), false}, {redirect("/{rest"), false}, {redirect("/rest}"), false}, {redirect("/a b"), false}, {redirect("/\r\nX: y"), false},
		{redirect(""), false}, {redirect("x"), false},
		{proxy.Route{Redirect: &proxy.Redirect{To: "/x", Status: 200}}, false}, {proxy.Route{Redirect: &proxy.Redirect{To: "/x"}, Files: "/srv"}, false},
		{proxy.Route{Match: paths("/api/*"), Strip: "/api"}, true}, {proxy.Route{Match: paths("/api/v1/*"), Strip: "/api/"}, true}, {proxy.Route{Strip: "/api"}, false},
		{proxy.Route{Match: paths("/apix"), Strip: "/api"}, false}, {proxy.Route{Match: paths("/*"), Strip: "/api"}, false},
		{proxy.Route{Rewrite: "/x/{rest}"}, true}, {proxy.Route{Rewrite: "x"}, false}, {proxy.Route{Rewrite: "/x?y"}, false}, {proxy.Route{Rewrite: "/../x"}, false}, {proxy.Route{Rewrite: "/a b"}, false},
		{proxy.Route{Rewrite: "/x", Strip: "/y", Match: paths("/y")}, false}, {proxy.Route{Files: "/srv", Rewrite: "/x"}, false}, {proxy.Route{Files: "/srv", Fallback: "index.html"}, true}, {proxy.Route{Files: "/srv", Fallback: "../x"}, false}, {proxy.Route{Fallback: "x"}, false},
		{proxy.Route{Respond: &proxy.Response{Status: 101}}, false}, {proxy.Route{Match: rule.Match{Methods: []string{"GE T"}}}, false},
		{set("X-Tenant", "{ask.tenant}"), true}, {set("x-real-ip", "{client.ip}"), true}, {set("Remote_User", "x"), false}, {set("X Y", "x"), false}, {set("X", "a\r\nb"), false},
		{set("Host", "x"), false}, {set("content-length", "1"), false}, {set("X-Forwarded-For", "x"), false}, {set("Connection", "x"), false}, {set("X", "{env.X}"), false}, {set("X", " x"), false},
		{answer("X-Frame-Options", "DENY"), true}, {answer("Report-To", "{{\"a\":1}}"), true}, {answer("Content-Encoding", "gzip"), false}, {answer("Transfer-Encoding", "x"), false},
		{headers(proxy.Headers{Remove: []string{"Server", "X-Powered-By"}}), true}, {headers(proxy.Headers{Remove: []string{"Host"}}), false}, {headers(proxy.Headers{RemoveResponse: []string{"Upgrade"}}), false},
	} {
		if err := proxy.CheckRoute(c.route); (err == nil) != c.ok {
			t.Errorf("row %d, %+v: %v", i, c.route, err)
		}
	}
}

// sees is an upstream that answers with the request's header, and sends fields that tell too much.
func sees(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "secret/1.0")
	w.Header().Set("X-Powered-By", "magic")
	w.Header().Set("X-Frame-Options", "ALLOW")
	_, _ = io.Copy(io.Discard, r.Body)
	for _, name := range []string{"X-Tenant", "X-Client", "X-Route", "Cookie", "X-Gone"} {
		_, _ = fmt.Fprintf(w, "%s=%q %q\n", name, r.Header[name], r.Trailer[name])
	}
}

func TestHeaders_SiteAndRouteChangeThemAndNoClientCan(t *testing.T) {
	site := proxytest.Site(t, proxytest.Upstream(t, sees), "a.test")
	site.Headers = &proxy.Headers{
		Set: map[string]string{"X-Tenant": "{ask.tenant}", "x-client": "{client.ip} on {host}", "X-Route": "none"}, Remove: []string{"Server", "x-powered-by", "X-Gone"},
		SetResponse: map[string]string{"X-Frame-Options": "DENY", "X-Id": "{request.id}"},
	}
	site.Routes = []proxy.Route{
		{Match: paths("/r/*"), Headers: &proxy.Headers{Set: map[string]string{"X-Route": "{{r}}"}, RemoveResponse: []string{"X-Frame-Options"}}},
		{Match: paths("/none"), Respond: &proxy.Response{Status: 404}},
	}
	p := proxytest.Start(t, proxytest.Sites(site), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for target, route := range map[string]string{"/x": "none", "/r/x": "{r}"} {
			r, _ := http.NewRequest("POST", mode.URL("a.test", target), io.NopCloser(strings.NewReader("x")))
			r.Header = http.Header{"X-Tenant": {"mine"}, "X_tenant": {"mine"}, "X-Client": {"{host}", "2"}, "X-Gone": {"1"}, "Cookie": {"a={host}"}, "Trailer": nil}
			r.Trailer = http.Header{"X-Tenant": {"mine"}, "X-Gone": {"1"}, "X-Client": {"1"}}
			if mode == proxytest.H1 || mode == proxytest.Plain {
				r.Header["Connection"] = []string{"X-Client, X-Route"}
			}
			res, body := proxytest.Do(t, p.Client(mode), r)
			want := fmt.Sprintf("X-Tenant=[] []\nX-Client=[\"127.0.0.1 on a.test\"] []\nX-Route=[%q] []\nCookie=[\"a={host}\"] []\nX-Gone=[] []\n", route)
			if res.StatusCode != 200 || body != want {
				t.Errorf("%s: %d, the upstream saw\n%swant\n%s", target, res.StatusCode, body, want)
			}
			frame := "DENY"
			if target == "/r/x" {
				frame = ""
			}
			if h := res.Header; h.Get("Server") != "" || h.Get("X-Powered-By") != "" || h.Get("X-Frame-Options") != frame || len(h.Get("X-Id")) != 26 {
				t.Errorf("%s: answer with %v", target, h)
			}
		}
		if res, _ := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/none")); res.StatusCode != 404 || res.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("our own answer: %d %v", res.StatusCode, res.Header)
		}
	})
}

func TestVia_ALoopEnds(t *testing.T) {
	p := proxytest.StartWith(t, proxy.Settings{HTTP3: true}, func(c *proxy.Config, set *proxy.Settings) {
		set.Sites = []proxy.Site{proxytest.Site(t, "http://"+c.HTTP[0].Addr().String(), "loop.test"), proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("Via"))
		}), "a.test")}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, _ := proxytest.Get(t, p.Client(mode), mode.URL("loop.test", "/"))
		if res.StatusCode != http.StatusLoopDetected {
			t.Errorf("loop: %d", res.StatusCode)
		}
		r, _ := http.NewRequest("GET", mode.URL("a.test", "/"), nil)
		r.Header["Via"] = []string{"1.0 one", "1.1 two (x)"}
		if res, via := proxytest.Do(t, p.Client(mode), r); res.StatusCode != 200 || !strings.HasPrefix(via, "1.0 one, 1.1 two (x), ") || strings.Count(via, "gatelodge-") != 1 {
			t.Errorf("%d, Via: %s", res.StatusCode, via)
		}
	})
	eventually(t, "the access log says that it was a loop", func() bool { return logged(p, "came back to us") })
}

func TestMaxForwards_EndsOptionsAndTraceHere(t *testing.T) {
	var passed atomic.Int64
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		_, _ = fmt.Fprintf(w, "%q", r.Header["Max-Forwards"])
	}), "a.test")), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			method, field string
			status        int
			seen          string // by the upstream
		}{
			{"OPTIONS", "0", http.StatusNoContent, ""},
			{"OPTIONS", "000", http.StatusNoContent, ""},
			{"TRACE", "0", http.StatusNotImplemented, ""},
			{"OPTIONS", "1", http.StatusOK, `["0"]`},
			{"TRACE", "10", http.StatusOK, `["9"]`},
			{"OPTIONS", "99999999999999999999", http.StatusOK, `["2147483646"]`},
			{"OPTIONS", "-1", http.StatusOK, `["-1"]`},
			{"OPTIONS", "", http.StatusOK, `[""]`},
			{"GET", "0", http.StatusOK, `["0"]`},
		} {
			before := passed.Load()
			r, _ := http.NewRequest(c.method, mode.URL("a.test", "/"), nil)
			r.Header["Max-Forwards"] = []string{c.field}
			res, body := proxytest.Do(t, p.Client(mode), r)
			if res.StatusCode != c.status || passed.Load()-before != int64(min(len(c.seen), 1)) || c.seen != "" && body != c.seen {
				t.Errorf("%s with %q: %d, the upstream saw %s", c.method, c.field, res.StatusCode, body)
			}
		}
	})
}

// logged reports whether the access log has a request with such an error.
func logged(p *proxytest.Proxy, text string) bool {
	for _, e := range p.Access.All() {
		if err, _ := e.ContextMap()["error"].(string); strings.Contains(err, text) {
			return true
		}
	}
	return false
}
