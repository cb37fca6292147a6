package proxy_test

import (
	"crypto/tls"
	"io"
	"sync/atomic"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// resume visits name at p with the session, and returns whether it resumed and a new session.
func resume(t *testing.T, p *proxytest.Proxy, mode proxytest.Mode, name string, with *tls.ClientSessionState, ticket bool) (bool, *tls.ClientSessionState) {
	t.Helper()
	c := &cache{s: with}
	if ticket {
		c.s = nil
	}
	client := p.ClientWith(mode, &tls.Config{ClientSessionCache: c, InsecureSkipVerify: true})
	defer client.CloseIdleConnections()
	res, err := client.Get(mode.URL(name, "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if ticket {
		return res.TLS.DidResume, c.waitFor(t)
	}
	return res.TLS.DidResume, nil
}

func TestTickets_AreSharedByAFleetAndOutliveARotation(t *testing.T) {
	nodes := [2]*proxytest.Proxy{twoSites(t, nil), twoSites(t, nil)}
	old, young := [32]byte{1}, [32]byte{2}
	give := func(keys ...[32]byte) {
		for _, p := range nodes {
			if err := p.SetTicketKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
	}
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		give(old)
		_, ticket := resume(t, nodes[0], mode, "a.test", nil, true)
		if ok, _ := resume(t, nodes[1], mode, "a.test", ticket, false); !ok {
			t.Error("the other node did not take the ticket")
		}
		if ok, _ := resume(t, nodes[1], mode, "x.wild.test", ticket, false); ok {
			t.Error("the other node took the ticket for another site")
		}
		give(young, old)
		if ok, _ := resume(t, nodes[1], mode, "a.test", ticket, false); !ok {
			t.Error("a rotation that keeps the old key made its tickets worthless")
		}
		_, fresh := resume(t, nodes[1], mode, "a.test", nil, true)
		give(young)
		if ok, _ := resume(t, nodes[0], mode, "a.test", ticket, false); ok {
			t.Error("a ticket outlived its key")
		}
		if ok, _ := resume(t, nodes[0], mode, "a.test", fresh, false); !ok {
			t.Error("the first key does not seal")
		}
	}, tlsModes...)
	if err := nodes[0].SetTicketKeys(nil); err == nil {
		t.Error("no key was taken for a key")
	}
}

func TestTickets_CanBeTurnedOff(t *testing.T) {
	p := twoSites(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		set := currentSettings(t, p)
		if err := p.Apply(set); err != nil {
			t.Fatal(err)
		}
		_, ticket := resume(t, p, mode, "a.test", nil, true)
		set.NoTickets = true
		if err := p.Apply(set); err != nil {
			t.Fatal(err)
		}
		if ok, _ := resume(t, p, mode, "a.test", ticket, false); ok {
			t.Error("a ticket of before was taken")
		}
		c := &cache{}
		client := p.ClientWith(mode, &tls.Config{ClientSessionCache: c})
		for range 2 {
			_, _ = proxytest.Get(t, client, mode.URL("a.test", "/"))
		}
		if _, ok := c.Get(""); ok {
			t.Error("a ticket was given out")
		}
	}, tlsModes...)
}

func TestTickets_OfANamePermittedForItselfResumeThatNameOnly(t *testing.T) {
	p := openToAll(t)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			from, to string
			want     bool
		}{
			{"a.test", "a.test", true}, {"a.test", "A.TEST", true}, {"a.test", "b.test", false}, {"a.test", "both.test", false},
			{"x.each.test", "x.each.test", true}, {"x.each.test", "y.each.test", false}, {"x.each.test", "each.test", false},
			{"x.listed.test", "y.listed.test", true}, {"x.listed.test", "listed.test", true},
		} {
			_, ticket := resume(t, p, mode, c.from, nil, true)
			if got, _ := resume(t, p, mode, c.to, ticket, false); got != c.want {
				t.Errorf("a ticket of %s at %s: resumed %v", c.from, c.to, got)
			}
		}
	}, tlsModes...)
}

// TestTickets_AreNotGivenWithACertificateThatStandsIn: a resumption would show no certificate, though there is one by then.
func TestTickets_AreNotGivenWithACertificateThatStandsIn(t *testing.T) {
	var standsIn atomic.Bool
	p := twoSites(t, func(set *proxy.Settings) {
		set.StandIn = func(cert *tls.Certificate) bool { return cert != nil && standsIn.Load() }
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if mode == proxytest.H3 && version != tls.VersionTLS13 {
				continue // RFC 9001 §4.2
			}
			visit := func(c *cache) bool {
				client := p.ClientWith(mode, &tls.Config{ClientSessionCache: c, InsecureSkipVerify: true, MaxVersion: version})
				defer client.CloseIdleConnections()
				res, err := client.Get(mode.URL("a.test", "/"))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				_, _ = io.Copy(io.Discard, res.Body)
				return res.TLS.DidResume
			}
			c := &cache{}
			standsIn.Store(true)
			visit(c)
			c.waitFor(t) // something, which nobody can open
			standsIn.Store(false)
			if visit(c) {
				t.Errorf("%s: what began with a stand-in was resumed", tls.VersionName(version))
			}
			c = &cache{}
			visit(c)
			c.waitFor(t)
			if !visit(c) {
				t.Errorf("%s: what began with the certificate was not resumed", tls.VersionName(version))
			}
		}
	}, tlsModes...)
}
