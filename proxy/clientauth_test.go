package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// guarded is a proxy whose sites ask for client certificates or do not: exact and wildcard names, each beside the other kind, and two policies.
type guarded struct {
	*proxytest.Proxy
	set              proxy.Settings
	partners, others *proxytest.CA
}

func newGuarded(t *testing.T) *guarded {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Client-Cert")) })
	site := func(policy string, hosts ...string) proxy.Site {
		s := proxytest.Site(t, to, hosts...)
		s.ClientAuth = policy
		return s
	}
	g := &guarded{partners: proxytest.NewCA(t), others: proxytest.NewCA(t)}
	g.set = proxytest.Sites(
		site("", "open.test", "also.open.test"), site("partners", "closed.test"), site("others", "other.test"),
		site("", "*.wild.test"), site("partners", "closed.wild.test"),
		site("partners", "*.guarded.test"), site("", "open.guarded.test"),
		site("asks", "asks.test"))
	g.set.ClientAuth = []proxy.ClientAuth{
		{Name: "partners", CAs: certsOf(g.partners), Forward: true}, {Name: "others", CAs: certsOf(g.others)},
		{Name: "asks", CAs: certsOf(g.partners), Optional: true, Forward: true},
	}
	g.Proxy = proxytest.Start(t, g.set, nil)
	return g
}

// as is a client with the certificates.
func (g *guarded) as(mode proxytest.Mode, certs ...tls.Certificate) *http.Client {
	return g.ClientWith(mode, &tls.Config{Certificates: certs})
}

// ask sends a request for host over a connection for sni and returns the status; 0 where the handshake failed.
func ask(t *testing.T, c *http.Client, mode proxytest.Mode, sni, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, mode.URL(sni, "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	res, err := c.Do(r)
	if err != nil {
		if isTimeout(err) {
			t.Fatalf("SNI %s, host %s: %v", sni, host, err)
		}
		return 0, "" // an alert, or what is left of it: over TLS 1.3 the client may be writing already when the server closes
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestClientAuth_LetsInWhoThePolicySays(t *testing.T) {
	g := newGuarded(t)
	partner, other, self := g.partners.Client(t, "p"), g.others.Client(t, "o"), proxytest.NewCA(t).Client(t, "nobody's")
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			who   string
			certs []tls.Certificate
			in    []string
		}{
			{"nobody", nil, []string{"open.test", "x.wild.test", "open.guarded.test", "asks.test"}},
			{"a partner", []tls.Certificate{partner}, []string{"open.test", "closed.test", "x.wild.test", "closed.wild.test", "x.guarded.test", "open.guarded.test", "asks.test"}},
			{"another", []tls.Certificate{other}, []string{"open.test", "other.test", "x.wild.test", "open.guarded.test", "asks.test"}},
			{"a stranger", []tls.Certificate{self}, []string{"open.test", "x.wild.test", "open.guarded.test", "asks.test"}},
		} {
			for _, name := range []string{"open.test", "closed.test", "other.test", "x.wild.test", "closed.wild.test", "x.guarded.test", "open.guarded.test", "asks.test"} {
				want := 0
				if strings.Contains(" "+strings.Join(c.in, " ")+" ", " "+name+" ") {
					want = 200
				}
				if got, _ := ask(t, g.as(mode, c.certs...), mode, name, name); got != want {
					t.Errorf("%s at %s: %d, want %d", c.who, name, got, want)
				}
			}
		}
		// crypto/tls's client sends no certificate of an authority that was not asked for; here is one who does.
		insistent := func(name string) *http.Client {
			return g.ClientWith(mode, &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other, nil }})
		}
		for _, name := range []string{"closed.test", "asks.test"} {
			if got, _ := ask(t, insistent(name), mode, name, name); got != 0 {
				t.Errorf("a certificate of another policy at %s: %d", name, got)
			}
		}
	}, tlsModes...)
}

// tlsModes are the modes with a handshake.
var tlsModes = []proxytest.Mode{proxytest.H1, proxytest.H2, proxytest.H3}

// The commonest advisory of all peers: the policy of one name is met, and the request goes to another.
func TestClientAuth_CannotBeGotAroundByAskingForAnotherHost(t *testing.T) {
	g := newGuarded(t)
	partner, other := g.partners.Client(t, "p"), g.others.Client(t, "o")
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			sni, host string
			want      int
		}{
			{"open.test", "closed.test", 421}, {"open.test", "CLOSED.test", 421}, {"open.test", "closed.test.", 421}, {"open.test", "Closed.Test.:443", 421},
			{"open.test", "closed.wild.test", 421}, {"open.test", "x.guarded.test", 421}, {"open.test", "also.open.test", 200}, {"open.test", "OPEN.test.", 200},
			{"x.wild.test", "closed.wild.test", 421}, {"x.wild.test", "CLOSED.wild.test", 421}, {"X.Wild.Test", "closed.wild.test.", 421}, {"x.wild.test", "y.wild.test", 200},
			{"open.guarded.test", "x.guarded.test", 421}, {"open.guarded.test", "X.GUARDED.test", 421}, {"open.guarded.test", "open.guarded.test:8443", 200},
			// With a certificate, but of another policy, or of none there.
			{"closed.test", "other.test", 421}, {"closed.test", "Other.Test", 421}, {"closed.test", "open.test", 421}, {"closed.test", "closed.test", 200},
			{"closed.test", "closed.wild.test", 421}, {"x.guarded.test", "y.guarded.test", 200}, {"x.guarded.test", "open.guarded.test", 421},
			{"other.test", "closed.test", 421}, {"other.test", "x.guarded.test", 421}, {"asks.test", "closed.test", 421}, {"asks.test", "asks.test", 200},
		} {
			client := g.as(mode, partner)
			if c.sni == "other.test" {
				client = g.as(mode, other)
			}
			// The second request on the connection is judged by itself, whatever the first one was.
			for _, first := range []string{c.host, c.sni} {
				if got, _ := ask(t, client, mode, c.sni, first); first == c.sni && got != 200 || first == c.host && got != c.want {
					t.Errorf("SNI %s, host %s: %d", c.sni, first, got)
				}
				if got, body := ask(t, client, mode, c.sni, c.host); got != c.want {
					t.Errorf("SNI %s, host %s after %s: %d %q, want %d", c.sni, c.host, first, got, body, c.want)
				}
			}
		}
	}, tlsModes...)
}

func TestClientAuth_IsNotSkippedByResumption(t *testing.T) {
	g := newGuarded(t)
	partner := g.partners.Client(t, "p")
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if mode.H3 && version != tls.VersionTLS13 {
				continue
			}
			// One ticket for all names, as an attacker would have it.
			visit := func(c *cache, name string, certs ...tls.Certificate) (status int, resumed bool) {
				client := g.ClientWith(mode, &tls.Config{Certificates: certs, ClientSessionCache: c, MaxVersion: version, InsecureSkipVerify: true})
				defer client.CloseIdleConnections()
				res, err := client.Get(mode.URL(name, "/"))
				if err != nil {
					return 0, false
				}
				defer res.Body.Close()
				_, _ = io.Copy(io.Discard, res.Body)
				return res.StatusCode, res.TLS.DidResume
			}
			for _, from := range []string{"open.test", "x.wild.test", "open.guarded.test", "asks.test"} {
				c := &cache{}
				if status, _ := visit(c, from); status != 200 {
					t.Fatalf("%s: %d", from, status)
				}
				ticket := c.waitFor(t)
				for _, name := range []string{"closed.test", "closed.wild.test", "x.guarded.test", "other.test"} {
					if status, _ := visit(&cache{s: ticket}, name); status != 0 {
						t.Errorf("with a ticket of %s at %s: %d without a certificate", from, name, status)
					}
				}
			}
			c := &cache{}
			if status, _ := visit(c, "closed.test", partner); status != 200 {
				t.Fatalf("closed.test: %d", status)
			}
			ticket := c.waitFor(t)
			if status, resumed := visit(&cache{s: ticket}, "closed.test"); status != 200 || !resumed {
				t.Errorf("a partner's ticket at its own site: %d, resumed: %v", status, resumed)
			}
			for _, name := range []string{"other.test", "closed.wild.test", "x.guarded.test"} {
				if status, resumed := visit(&cache{s: ticket}, name); status != 0 || resumed {
					t.Errorf("a partner's ticket of closed.test at %s: %d, resumed: %v", name, status, resumed)
				}
			}
			if status, resumed := visit(&cache{s: ticket}, "asks.test"); status != 200 || resumed {
				t.Errorf("a partner's ticket at a site that only asks: %d, resumed: %v", status, resumed)
			}
		}
	}, tlsModes...)
}

func TestClientAuth_AReloadThatAsksForMoreEndsOldConnectionsAndTickets(t *testing.T) {
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		g := newGuarded(t)
		c := &cache{}
		client := g.ClientWith(mode, &tls.Config{ClientSessionCache: c})
		if status, _ := ask(t, client, mode, "open.test", "open.test"); status != 200 {
			t.Fatalf("before: %d", status)
		}
		ticket := c.waitFor(t)
		sites := append([]proxy.Site(nil), g.set.Sites...)
		sites[0].ClientAuth = "partners"
		set := g.set
		set.Sites = sites
		if err := g.Apply(set); err != nil {
			t.Fatal(err)
		}
		if status, _ := ask(t, client, mode, "open.test", "open.test"); status != 421 {
			t.Errorf("on the old connection: %d, want 421", status)
		}
		if status, _ := ask(t, g.ClientWith(mode, &tls.Config{ClientSessionCache: &cache{s: ticket}}), mode, "open.test", "open.test"); status != 0 {
			t.Errorf("with an old ticket: %d", status)
		}
		// Another CA is another policy, and its name says nothing.
		partner := g.partners.Client(t, "p")
		c = &cache{}
		client = g.ClientWith(mode, &tls.Config{ClientSessionCache: c, Certificates: []tls.Certificate{partner}})
		if status, _ := ask(t, client, mode, "closed.test", "closed.test"); status != 200 {
			t.Fatalf("a partner: %d", status)
		}
		ticket = c.waitFor(t)
		set.ClientAuth = append([]proxy.ClientAuth(nil), set.ClientAuth...)
		set.ClientAuth[0].CAs = certsOf(g.others)
		if err := g.Apply(set); err != nil {
			t.Fatal(err)
		}
		if status, _ := ask(t, client, mode, "closed.test", "closed.test"); status != 421 {
			t.Errorf("on the old connection after another CA: %d, want 421", status)
		}
		again := g.ClientWith(mode, &tls.Config{ClientSessionCache: &cache{s: ticket}, Certificates: []tls.Certificate{partner}})
		if status, _ := ask(t, again, mode, "closed.test", "closed.test"); status != 0 {
			t.Errorf("with an old ticket after another CA: %d", status)
		}
	}, tlsModes...)
}

func TestClientAuth_TellsTheUpstreamWhoItIsAndNobodyElseCan(t *testing.T) {
	g := newGuarded(t)
	partner := g.partners.Client(t, "p")
	proof := ":" + base64.StdEncoding.EncodeToString(partner.Certificate[0]) + ":"
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			host  string
			certs []tls.Certificate
			want  string
		}{
			{"closed.test", []tls.Certificate{partner}, proof}, {"asks.test", []tls.Certificate{partner}, proof}, {"asks.test", nil, ""}, {"open.test", []tls.Certificate{partner}, ""},
		} {
			r, _ := http.NewRequest(http.MethodGet, mode.URL(c.host, "/"), nil)
			r.Header = http.Header{"Client-Cert": {":bGll:"}, "Client-Cert-Chain": {":bGll:"}, "Client_Cert": {":bGll:"}}
			if _, body := proxytest.Do(t, g.as(mode, c.certs...), r); body != c.want {
				t.Errorf("%s: the upstream read %q, want %q", c.host, body, c.want)
			}
		}
	}, tlsModes...)
}

func TestClientAuth_IsNotGotAroundWithoutTLS(t *testing.T) {
	g := newGuarded(t)
	for _, host := range []string{"closed.test", "asks.test", "x.guarded.test"} {
		res, body := proxytest.Get(t, g.Client(proxytest.Plain), "http://"+host+"/x")
		if res.StatusCode != http.StatusPermanentRedirect || res.Header.Get("Location") != "https://"+host+"/x" {
			t.Errorf("%s: %d %q %q", host, res.StatusCode, res.Header.Get("Location"), body)
		}
	}
}

func TestClientAuth_RefusesSettingsThatAreNotComplete(t *testing.T) {
	g := newGuarded(t)
	for name, set := range map[string]proxy.Settings{
		"a policy that is not there": {Sites: g.set.Sites, ClientAuth: g.set.ClientAuth[1:]},
		"a policy without CAs":       {ClientAuth: []proxy.ClientAuth{{Name: "empty"}}},
		"a policy without a name":    {ClientAuth: []proxy.ClientAuth{{CAs: certsOf(g.partners)}}},
		"a policy twice":             {ClientAuth: []proxy.ClientAuth{g.set.ClientAuth[0], g.set.ClientAuth[0]}},
		"a missing CA":               {ClientAuth: []proxy.ClientAuth{{Name: "nil", CAs: append(certsOf(g.partners), nil)}}},
	} {
		if err := g.Apply(set); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if status, _ := ask(t, g.as(proxytest.H1), proxytest.H1, "closed.test", "closed.test"); status != 0 {
		t.Errorf("after the bad settings: %d", status)
	}
}

func TestLoadClientAuth_TakesWholePoliciesOnly(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := pemOf(proxytest.NewCA(t)), pemOf(proxytest.NewCA(t))
	good := write("good", "# our partners\n"+one+"\n"+two)
	p, err := proxy.LoadClientAuth("partners", []string{good, write("one", one)}, "request")
	if err != nil || p.Name != "partners" || len(p.CAs) != 3 || !p.Optional {
		t.Errorf("policy = %+v, %v", p, err)
	}
	if p, err := proxy.LoadClientAuth("partners", []string{good}, "require"); err != nil || p.Optional {
		t.Errorf("policy = %+v, %v", p, err)
	}
	for name, files := range map[string][]string{
		"no files":                     nil,
		"a file that is not there":     {good, filepath.Join(dir, "none")},
		"an empty file":                {good, write("empty", "")},
		"a text":                       {write("text", "partners\n")},
		"a key":                        {write("key", one+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})))},
		"a certificate that is none":   {write("none", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})))},
		"a file that is cut off":       {write("cut", one+two[:len(two)-40])},
		"a file cut off in the middle": {write("middle", one[:len(one)-40]+two)},
	} {
		if p, err := proxy.LoadClientAuth("partners", files, "require"); err == nil || len(p.CAs) != 0 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if _, err := proxy.LoadClientAuth("partners", []string{good}, "off"); err == nil {
		t.Error("a mode that does not exist was taken")
	}
}
