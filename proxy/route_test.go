package proxy_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// openToAll is a proxy with a catch-all site, a wildcard whose names are permitted one by one, and a site whose names are all listed.
func openToAll(t *testing.T) *proxytest.Proxy {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	all, each, listed := proxytest.Site(t, to, "*"), proxytest.Site(t, to, "*.each.test", "each.test"), proxytest.Site(t, to, "*.listed.test", "listed.test")
	each.OnDemand = true
	p := proxytest.Start(t, proxytest.Sites(all, each, listed), nil)
	p.CA.Also["both.test"] = []string{"*.both.test"}
	return p
}

// With a catch-all site the name of the handshake is the only one that somebody was asked about. Whoever has a permitted name could otherwise bring any
// other one to the upstream.
func TestRoute_ANamePermittedForItselfCarriesRequestsForNoOther(t *testing.T) {
	p := openToAll(t)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			sni, host string
			want      int
		}{
			{"a.test", "a.test", 200}, {"a.test", "A.Test.:443", 200}, {"a.test", "b.test", 421}, {"a.test", "x.a.test", 421}, {"x.a.test", "a.test", 421},
			{"both.test", "x.both.test", 200}, {"both.test", "X.BOTH.test.", 200}, {"both.test", "x.y.both.test", 421}, {"both.test", "a.test", 421}, {"x.both.test", "both.test", 421},
			{"x.each.test", "y.each.test", 421}, {"x.each.test", "X.Each.Test", 200}, {"x.each.test", "each.test", 200}, {"each.test", "x.each.test", 421},
			{"x.listed.test", "y.listed.test", 200}, {"x.listed.test", "listed.test", 200}, {"listed.test", "y.listed.test", 200},
			{"a.test", "listed.test", 421}, {"listed.test", "a.test", 421},
		} {
			client := p.Client(mode)
			for _, host := range []string{c.sni, c.host, c.host} { // the first request on the connection decides nothing
				want := c.want
				if host == c.sni {
					want = 200
				}
				if got, body := ask(t, client, mode, c.sni, host); got != want {
					t.Errorf("SNI %s, host %s: %d %q, want %d", c.sni, host, got, body, want)
				}
			}
		}
	}, tlsModes...)
}

func TestRoute_AResumedConnectionIsForItsOwnNameAlone(t *testing.T) {
	p := openToAll(t)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		_, ticket := resume(t, p, mode, "both.test", nil, true)
		client := p.ClientWith(mode, &tls.Config{ClientSessionCache: &cache{s: ticket}, InsecureSkipVerify: true})
		if got, _ := ask(t, client, mode, "both.test", "both.test"); got != 200 {
			t.Errorf("its own name: %d", got)
		}
		if got, _ := ask(t, client, mode, "both.test", "x.both.test"); got != 421 {
			t.Errorf("another name that the certificate of the first handshake covered: %d", got)
		}
	}, tlsModes...)
}

func TestHandshake_ServesTheDefaultToUnknownNamesIfToldTo(t *testing.T) {
	p := twoSites(t, func(s *proxy.Settings) { s.DefaultName, s.UnknownDefault = "a.test", true })
	for _, sni := range []string{"unknown.test", "x.y.wild.test", "", "under_score.test"} {
		state, err := shake(t, p, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		if err != nil || state.PeerCertificates[0].DNSNames[0] != "a.test" {
			t.Errorf("%q: %v", sni, err)
		}
	}
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.ClientWith(mode, &tls.Config{InsecureSkipVerify: true})
		for host, want := range map[string]int{"unknown.test": 421, "a.test": 200, "www.a.test": 200, "x.wild.test": 421} {
			if got, _ := ask(t, client, mode, "unknown.test", host); got != want {
				t.Errorf("host %s: %d, want %d", host, got, want)
			}
		}
		if got, body := ask(t, p.Client(mode), mode, "x.wild.test", "x.wild.test"); got != 200 || body != "wild" {
			t.Errorf("a known name: %d %q", got, body)
		}
	}, tlsModes...)
	for name, edit := range map[string]func(*proxy.Settings){
		"without a default name": func(s *proxy.Settings) { s.DefaultName = "" },
		"and closing":            func(s *proxy.Settings) { s.UnknownClose = true },
	} {
		set := currentSettings(t, p)
		set.DefaultName, set.UnknownDefault = "a.test", true
		edit(&set)
		if err := p.Apply(set); err == nil {
			t.Errorf("serving the default %s: no error", name)
		}
	}
}

func TestParseGroups_TakesTheNamesOfTheConfiguration(t *testing.T) {
	groups, err := proxy.ParseGroups([]string{"X25519MLKEM768", "X25519", "P-256"})
	if err != nil || len(groups) != 3 || groups[0] != tls.X25519MLKEM768 || groups[2] != tls.CurveP256 {
		t.Errorf("groups = %v, %v", groups, err)
	}
	if _, err := proxy.ParseGroups([]string{"x25519", "P-999"}); err == nil {
		t.Error("a group that does not exist was taken")
	}
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Groups, _ = proxy.ParseGroups([]string{"X25519", "P-256"})
	})
	state, err := shake(t, p, &tls.Config{ServerName: "a.test"})
	if err != nil || state.CurveID != tls.X25519 {
		t.Errorf("group %v, %v", state.CurveID, err)
	}
	if _, err := shake(t, p, &tls.Config{ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.CurveP384}}); err == nil {
		t.Error("a group was used that is not on the list")
	}
}
