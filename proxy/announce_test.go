package proxy_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"gatelodge/proxy/proxytest"
)

func TestAnnounce_HSTSOverTLSOnlyAndInPlaceOfTheUpstreams(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Strict-Transport-Security"] = []string{"max-age=1", "max-age=2"}
	})
	ours, theirs, broken := proxytest.Site(t, to, "ours.test"), proxytest.Site(t, to, "theirs.test"), proxytest.Site(t, "http://127.0.0.1:1", "broken.test")
	ours.HSTS, broken.HSTS = 60*24*time.Hour+time.Millisecond, time.Hour
	p := proxytest.Start(t, proxytest.Sites(ours, theirs, broken), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for host, want := range map[string][]string{"ours.test": {"max-age=5184000"}, "theirs.test": {"max-age=1", "max-age=2"}, "broken.test": {"max-age=3600"}} {
			if !mode.TLS && host != "theirs.test" {
				want = nil
			}
			res, _ := proxytest.Get(t, p.Client(mode), mode.URL(host, "/"))
			if got := res.Header["Strict-Transport-Security"]; !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", host, got, want)
			}
		}
	})
}
