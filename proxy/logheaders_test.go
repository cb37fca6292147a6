package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestAccessLog_ShowsTheHeadersThatAreAskedForAndNoSecrets(t *testing.T) {
	to := proxytest.Upstream(t, func(http.ResponseWriter, *http.Request) {})
	for name, row := range map[string]struct {
		headers []string
		want    map[string]any // nil: no header at all
	}{
		"none":  {nil, nil},
		"named": {[]string{"referer", "Cookie", "x-none"}, map[string]any{"Referer": "https://x.test/", "Cookie": "[redacted]"}},
		"all": {[]string{"*"}, map[string]any{
			"Referer": "https://x.test/", "Cookie": "[redacted]", "Authorization": "[redacted]", "X-Long": strings.Repeat("x", 1024), "X-Twice": "a, b",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := proxytest.StartWith(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(_ *proxy.Config, set *proxy.Settings) {
				set.LogHeaders, set.LogRedact = row.headers, []string{"authorization", "Cookie"}
			})
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				_ = p.Access.TakeAll()
				r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
				r.Header = http.Header{
					"Referer": {"https://x.test/"}, "Cookie": {"session=secret"}, "Authorization": {"Basic c2VjcmV0"}, "X-Long": {strings.Repeat("x", 5000)}, "X-Twice": {"a", "b"},
				}
				_, _ = proxytest.Do(t, p.Client(mode), r)
				eventually(t, "the request is in the log", func() bool { return p.Access.Len() == 1 })
				got, _ := p.Access.All()[0].ContextMap()["headers"].(map[string]any)
				for name, want := range row.want {
					if got[name] != want {
						t.Errorf("%s: %v, want %v", name, got[name], want)
					}
				}
				if row.want == nil && got != nil || name == "named" && len(got) != 2 {
					t.Errorf("the log shows %v", got)
				}
			})
		})
	}
}
