package proxy_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestAnswer_IsAPageForBrowsersAndTextForOthers(t *testing.T) {
	site := proxytest.Site(t, "http://127.0.0.1:1", "a.test")
	p := proxytest.StartWith(t, proxytest.Sites(site), func(_ *proxy.Config, set *proxy.Settings) {
		set.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for accept, want := range map[string]string{
			"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
			"*/*":                             "text/plain; charset=utf-8",
			"":                                "text/plain; charset=utf-8",
			"application/json, text/html;q=0": "text/plain; charset=utf-8",
			"text/html;q=0.1":                 "text/html; charset=utf-8",
		} {
			r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/<script>"), nil)
			r.Header.Set("X-Request-Id", "<b>me&you</b>")
			if accept != "" {
				r.Header.Set("Accept", accept)
			}
			res, body := proxytest.Do(t, p.Client(mode), r)
			if res.StatusCode != 502 || res.Header.Get("Content-Type") != want || res.Header.Get("X-Request-Id") != "<b>me&you</b>" {
				t.Errorf("Accept %q: %s %v", accept, res.Status, res.Header)
			}
			id := "<b>me&you</b>"
			if strings.HasPrefix(want, "text/html") {
				id = "&lt;b&gt;me&amp;you&lt;/b&gt;"
			}
			if !strings.Contains(body, id) || strings.Contains(body, "script") || strings.Contains(body, "127.0.0.1") {
				t.Errorf("Accept %q: %s", accept, body)
			}
		}
	})
}
