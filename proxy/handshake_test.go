package proxy_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// shake does a handshake with the proxy and returns the connection's state.
func shake(t *testing.T, p *proxytest.Proxy, cfg *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	cfg.RootCAs = p.CA.Pool
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", p.HTTPS, cfg)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.ConnectionState(), nil
}

// twoSites is a proxy with an exact, a wildcard and another exact site; the upstream answers with the name of the site.
func twoSites(t *testing.T, edit func(*proxy.Settings)) *proxytest.Proxy {
	t.Helper()
	say := func(text string) string {
		return proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, text) })
	}
	set := proxytest.Sites(
		proxytest.Site(t, say("a"), "a.test", "www.a.test"), proxytest.Site(t, say("wild"), "*.wild.test"), proxytest.Site(t, say("special"), "special.wild.test"))
	if edit != nil {
		edit(&set)
	}
	return proxytest.Start(t, set, nil)
}

// isUnrecognizedName reports whether err is the TLS alert of RFC 6066 §3 from the other side.
func isUnrecognizedName(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && op.Err.Error() == tls.AlertError(112).Error()
}

func TestHandshake_RefusesUnknownNamesWithTheAlert(t *testing.T) {
	p := twoSites(t, nil)
	for _, name := range []string{"unknown.test", "wild.test", "x.y.wild.test", "xa.test", ""} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			_, err := shake(t, p, &tls.Config{ServerName: name, InsecureSkipVerify: true, MaxVersion: version})
			if !isUnrecognizedName(err) {
				t.Errorf("%q with %s: %v, want the alert unrecognized_name", name, tls.VersionName(version), err)
			}
		}
	}
	eventually(t, "ten handshakes are counted as failed", func() bool { return p.Metrics.Handshakes(false) == 10 })
}

func TestHandshake_KnowsANameInEverySpelling(t *testing.T) {
	p := twoSites(t, nil)
	for _, sni := range []string{"a.test", "A.TEST", "x.wild.test", "X.Wild.Test"} {
		state, err := shake(t, p, &tls.Config{ServerName: sni})
		if err != nil {
			t.Errorf("%q: %v", sni, err)
			continue
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != strings.ToLower(sni) {
			t.Errorf("%q got the certificate of %q", sni, got)
		}
	}
}

func TestHandshake_ClosesInsteadOfTheAlertWhenToldTo(t *testing.T) {
	p := twoSites(t, func(s *proxy.Settings) { s.UnknownClose = true })
	_, err := shake(t, p, &tls.Config{ServerName: "unknown.test", InsecureSkipVerify: true})
	if err == nil || isUnrecognizedName(err) {
		t.Errorf("error = %v, want a closed connection without an alert", err)
	}
}

func TestHandshake_ServesTheDefaultNameWithoutSNI(t *testing.T) {
	p := twoSites(t, func(s *proxy.Settings) { s.DefaultName = "a.test" })
	state, err := shake(t, p, &tls.Config{InsecureSkipVerify: true})
	if err != nil || state.PeerCertificates[0].DNSNames[0] != "a.test" {
		t.Errorf("state %v, %v", state.PeerCertificates, err)
	}
	if _, err := shake(t, p, &tls.Config{ServerName: "unknown.test", InsecureSkipVerify: true}); err == nil {
		t.Error("an unknown name got the default certificate")
	}
}

func TestHandshake_ServesAnAddressToThoseWhoConnectToIt(t *testing.T) {
	for _, c := range []struct {
		hosts []string
		ok    bool
	}{{[]string{"127.0.0.1"}, true}, {[]string{"a.test", "127.0.0.1"}, true}, {[]string{"*"}, false}, {[]string{"127.0.0.2"}, false}} {
		to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {})
		p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, c.hosts...)), nil)
		res, err := p.Client(proxytest.H2).Get("https://127.0.0.1/")
		if (err == nil) != c.ok {
			t.Errorf("hosts %v: %v", c.hosts, err)
		}
		if err == nil {
			_ = res.Body.Close()
		}
	}
}

func TestHandshake_ANameWithoutCertificateGetsTheAlert(t *testing.T) {
	p := twoSites(t, nil)
	p.CA.Refuse["www.a.test"] = true
	_, err := shake(t, p, &tls.Config{ServerName: "www.a.test"})
	if !isUnrecognizedName(err) {
		t.Errorf("error = %v", err)
	}
}

func TestHandshake_PrefersThePostQuantumGroup(t *testing.T) {
	p := twoSites(t, nil)
	state, err := shake(t, p, &tls.Config{ServerName: "a.test"})
	if err != nil || state.CurveID != tls.X25519MLKEM768 || state.Version != tls.VersionTLS13 {
		t.Errorf("group %v, %s, %v", state.CurveID, tls.VersionName(state.Version), err)
	}
	if _, err := shake(t, p, &tls.Config{ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.CurveP256}}); err != nil {
		t.Errorf("with P-256 alone: %v", err)
	}
	if _, err := shake(t, p, &tls.Config{ServerName: "a.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestHandshake_EndsTheConnectionAfterAChallenge(t *testing.T) {
	seen := make(chan string, 1)
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(c *proxy.Config) {
		inner := c.GetCertificate
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			seen <- hello.ServerName + " " + strings.Join(hello.SupportedProtos, ",")
			return inner(hello)
		}
	})
	// The name of an address (RFC 8738 §6) belongs to no site; who may be validated is for the certificates to say.
	for _, name := range []string{"a.test", "1.0.0.127.in-addr.arpa"} {
		c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: name, RootCAs: p.CA.Pool, NextProtos: []string{"acme-tls/1"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != "acme-tls/1" {
			t.Errorf("protocol = %q", got)
		}
		if got := <-seen; got != name+" acme-tls/1" {
			t.Errorf("GetCertificate was asked for %q", got)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); err == nil {
			if got, err := io.ReadAll(c); len(got) > 0 || isTimeout(err) {
				t.Errorf("after %d bytes the connection answered %q, %v", n, got, err)
			}
		}
		_ = c.Close()
	}
}

func TestHandshake_HasADeadlineWhateverTheProtocol(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(c *proxy.Config) {
		c.Limits.HandshakeTimeout = 100 * time.Millisecond
	})
	c, err := net.Dial("tcp", p.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = c.Write([]byte{22, 3, 1, 1}) // the beginning of a record, and then nothing
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("read: %v, want a closed connection", err)
	}
	eventually(t, "nothing is open", func() bool { return p.Metrics.Open() == 0 })
}

func TestHandshake_ClockStandsStillWhileACertificateIsObtained(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(c *proxy.Config) {
		c.Limits.HandshakeTimeout = 100 * time.Millisecond
		inner := c.GetCertificate
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			time.Sleep(300 * time.Millisecond)
			return inner(hello)
		}
	})
	if _, err := shake(t, p, &tls.Config{ServerName: "a.test"}); err != nil {
		t.Error(err)
	}
}

func TestHandshake_TellsPlainHTTPWhatThePortIsFor(t *testing.T) {
	p := twoSites(t, nil)
	c, err := net.Dial("tcp", p.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("answer = %q", answer)
	}
}

// cache is a tls.ClientSessionCache that gives its session to every name.
type cache struct {
	mu sync.Mutex
	s  *tls.ClientSessionState
}

func (c *cache) Get(string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s, c.s != nil
}

func (c *cache) Put(_ string, s *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s = s
}

// waitFor returns the session once it is there: over TLS 1.3 it comes after the handshake.
func (c *cache) waitFor(t *testing.T) *tls.ClientSessionState {
	t.Helper()
	eventually(t, "a session ticket comes", func() bool { _, ok := c.Get(""); return ok })
	s, _ := c.Get("")
	return s
}

func TestHandshake_ATicketResumesAtItsOwnSiteOnly(t *testing.T) {
	p := twoSites(t, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		resumed := func(c *cache, name string) bool {
			cfg := &tls.Config{ServerName: name, RootCAs: p.CA.Pool, ClientSessionCache: c, MaxVersion: version, InsecureSkipVerify: true}
			conn, err := tls.Dial("tcp", p.HTTPS, cfg)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
			_, _ = io.ReadAll(conn) // the ticket comes with the answer
			return conn.ConnectionState().DidResume
		}
		c := &cache{}
		if resumed(c, "a.test") {
			t.Error("resumed without a ticket")
		}
		ticket := c.s
		if !resumed(&cache{s: ticket}, "a.test") || !resumed(&cache{s: ticket}, "www.a.test") {
			t.Error("a ticket was not taken by its own site")
		}
		if resumed(&cache{s: ticket}, "x.wild.test") || resumed(&cache{s: ticket}, "special.wild.test") {
			t.Error("a ticket resumed at another site")
		}
		if _, err := shake(t, p, &tls.Config{ServerName: "unknown.test", ClientSessionCache: &cache{s: ticket}, MaxVersion: version, InsecureSkipVerify: true}); err == nil {
			t.Error("a ticket opened a name that is not ours")
		}
		if err := p.Apply(currentSettings(t, p)); err != nil {
			t.Fatal(err)
		}
		if !resumed(&cache{s: ticket}, "a.test") {
			t.Error("a reload made tickets worthless")
		}
	}
}

// currentSettings builds settings equal to those of twoSites from what the server says.
func currentSettings(t *testing.T, p *proxytest.Proxy) proxy.Settings {
	t.Helper()
	var sites []proxy.Site
	for _, host := range []string{"a.test", "x.wild.test", "special.wild.test"} {
		s, ok := p.Site(host)
		if !ok {
			t.Fatalf("no site for %s", host)
		}
		sites = append(sites, *s)
	}
	return proxytest.Sites(sites...)
}

func TestRoute_MisdirectsRequestsForAnotherSiteThanTheHandshakes(t *testing.T) {
	p := twoSites(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			sni, host string
			want      int
		}{
			{"a.test", "a.test", 200}, {"a.test", "A.Test.:443", 200}, {"a.test", "www.a.test", 200}, {"a.test", "x.wild.test", 421}, {"a.test", "special.wild.test", 421},
			{"a.test", "unknown.test", 421}, {"x.wild.test", "y.wild.test", 200}, {"x.wild.test", "special.wild.test", 421}, {"x.wild.test", "SPECIAL.wild.test", 421},
			{"special.wild.test", "x.wild.test", 421}, {"x.wild.test", "a.test.", 421},
		} {
			client := p.Client(mode)
			r, _ := http.NewRequest(http.MethodGet, mode.URL(c.sni, "/"), nil)
			r.Host = c.host
			// The second request on the same connection is judged by itself.
			for range 2 {
				if res, body := proxytest.Do(t, client, r); res.StatusCode != c.want {
					t.Errorf("SNI %s, host %s: %d %q, want %d", c.sni, c.host, res.StatusCode, body, c.want)
				}
			}
		}
	}, proxytest.H1, proxytest.H2)
}

func TestRoute_MisdirectsUnknownHostsWithoutTLS(t *testing.T) {
	p := twoSites(t, nil)
	for host, want := range map[string]int{"a.test": 200, "x.wild.test": 200, "unknown.test": 421} {
		if res, _ := proxytest.Get(t, p.Client(proxytest.Plain), "http://"+host+"/"); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, res.StatusCode, want)
		}
	}
}

func TestRoute_RedirectsToHTTPSAfterChallenges(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { t.Error("a plain request reached the upstream") })
	set := proxytest.Sites(proxytest.Site(t, to, "a.test"), proxytest.Site(t, to, "10.1.2.3", "2001:db8::1"))
	set.RedirectHTTP = true
	p := proxytest.Start(t, set, func(c *proxy.Config) {
		c.Challenges = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/.well-known/acme-challenge/pending" {
					_, _ = io.WriteString(w, "pending.thumbprint")
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	})
	client := p.Client(proxytest.Plain)
	if res, body := proxytest.Get(t, client, "http://a.test/.well-known/acme-challenge/pending"); res.StatusCode != 200 || body != "pending.thumbprint" {
		t.Errorf("challenge: %d %q", res.StatusCode, body)
	}
	if res, _ := proxytest.Get(t, client, "http://a.test/.well-known/acme-challenge/other"); res.StatusCode != 308 {
		t.Errorf("a token of nobody's: %d, want the normal way", res.StatusCode)
	}
	for url, want := range map[string]string{
		"http://a.test/x%2Fy?q=1;%zz":  "https://a.test/x%2Fy?q=1;%zz",
		"http://A.Test.:8080/":         "https://a.test/",
		"http://a.test//evil.test/..":  "https://a.test//evil.test/..",
		"http://10.1.2.3/":             "https://10.1.2.3/",
		"http://[2001:db8:0::1]:80/?a": "https://[2001:db8::1]/?a",
	} {
		res, _ := proxytest.Get(t, client, url)
		if got := res.Header.Get("Location"); res.StatusCode != 308 || got != want {
			t.Errorf("%s: %d to %q, want %q", url, res.StatusCode, got, want)
		}
	}
	if res, _ := proxytest.Get(t, client, "http://evil.test/"); res.StatusCode != 421 || res.Header.Get("Location") != "" {
		t.Errorf("an unknown host: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	set.HTTPSPort = 8443
	if err := p.Apply(set); err != nil {
		t.Fatal(err)
	}
	if res, _ := proxytest.Get(t, client, "http://a.test/"); res.Header.Get("Location") != "https://a.test:8443/" {
		t.Errorf("with a port: %q", res.Header.Get("Location"))
	}
}
