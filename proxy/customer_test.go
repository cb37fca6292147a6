package proxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

func TestCustomer_GoesToItsOwnUpstreamAndIsNamedToIt(t *testing.T) {
	say := func(who string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, who+" "+strings.Join(r.Header["X-Tenant"], ","))
		}
	}
	own := proxytest.Upstream(t, say("own"))
	said := map[string]proxy.Customer{
		"own.test": {Tenant: "acme", To: own}, "also.test": {Tenant: "acme", To: own}, "plain.test": {Tenant: "other"}, "bad.test": {To: "gopher://x"}, "evil.test": {Tenant: "a\r\nX: y"},
		"listed.test": {Tenant: "never", To: own},
	}
	var opened atomic.Int32
	site, listed := proxytest.Site(t, proxytest.Upstream(t, say("site")), "*"), proxytest.Site(t, proxytest.Upstream(t, say("listed")), "listed.test")
	site.OnDemand = true
	site.Headers = &proxy.Headers{Set: map[string]string{"X-Tenant": "{ask.tenant}"}}
	site.Routes = []proxy.Route{{Match: paths("/shared/*"), Upstream: pool(t, "shared")}}
	listed.Headers = site.Headers
	homeless := proxy.Site{Name: "*.each.test", Hosts: []string{"*.each.test"}, OnDemand: true}
	said["own.each.test"] = said["own.test"]
	set := proxytest.Sites(site, listed, homeless)
	set.Customers = func(_ context.Context, name string) (proxy.Customer, bool) { c, ok := said[name]; return c, ok }
	set.OpenUpstream = func(to string) (proxy.Upstream, error) {
		opened.Add(1)
		if !strings.HasPrefix(to, "http://") {
			return nil, errors.New("no http:// address")
		}
		return upstream.New(upstream.Config{To: []string{to}})
	}
	p := proxytest.Start(t, set, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		for _, c := range []struct {
			host, target, body string
			status             int
		}{
			{"own.test", "/", "own acme", 200}, {"also.test", "/", "own acme", 200}, {"plain.test", "/", "site other", 200}, {"unknown.test", "/", "site ", 200}, {"evil.test", "/", "site ", 200},
			{"listed.test", "/", "listed ", 200}, {"own.test", "/shared/x", "shared ", 200}, {"bad.test", "/", "", 502}, {"own.each.test", "/", "own mine", 200}, {"unknown.each.test", "/", "", 503},
		} {
			r, _ := http.NewRequest("GET", mode.URL(c.host, c.target), nil)
			r.Header.Set("X-Tenant", "mine")
			if res, body := proxytest.Do(t, client, r); res.StatusCode != c.status || c.status == 200 && body != c.body {
				t.Errorf("%s%s: %d %q, want %q", c.host, c.target, res.StatusCode, body, c.body)
			}
		}
	}, proxytest.Modes...)
	if n := opened.Load(); n != 1+int32(len(proxytest.Modes)) { // the one that cannot be opened is tried every time
		t.Errorf("%d upstreams were opened", n)
	}
}
