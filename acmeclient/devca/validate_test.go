package devca

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func job(kind, name string) validation {
	v := validation{kind: kind, ident: identifier{identDNS, name}, token: "tok", keyAuth: "tok.thumb"}
	if net.ParseIP(name) != nil {
		v.ident.Type = identIP
	}
	return v
}

func (p *problem) kind() string {
	if p == nil {
		return "valid"
	}
	return p.Type
}

func TestValidateHTTP_TakesOnlyTheKeyAuthorization(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	body := func(b string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, b) }
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/there" {
				_, _ = io.WriteString(w, "tok.thumb")
				return
			}
			http.Redirect(w, r, to, http.StatusFound)
		}
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"right", body("tok.thumb"), "valid"},
		{"right with space after it", body("tok.thumb \r\n\t"), "valid"},
		{"space before it", body(" tok.thumb"), "unauthorized"},
		{"wrong", body("tok.other"), "unauthorized"},
		{"empty", body(""), "unauthorized"},
		{"right, then a lot more", body("tok.thumb" + strings.Repeat("x", 1<<20)), "unauthorized"},
		{"right, but 404", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "tok.thumb")
		}, "unauthorized"},
		{"redirect to another name", redirect("http://other.localhost/there"), "valid"},
		{"redirect to https", redirect("https://tls.localhost/there"), "tls"}, // the site has no certificate of that name
		{"redirect to another port", redirect("http://a.localhost:8080/there"), "connection"},
		{"redirect to an address", redirect("http://192.0.2.1/there"), "valid"}, // goes to HTTPAddr all the same
		{"redirect to another scheme", redirect("ftp://a.localhost/there"), "connection"},
		{"redirect in a circle", redirect("/again"), "connection"},
		{"connection cut", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.mu.Lock()
			s.handler = tt.h
			s.mu.Unlock()
			if _, p := ca.validate(t.Context(), job(challengeHTTP, "a.localhost")); p.kind() != tt.want {
				t.Errorf("got %s (%v), want %s", p.kind(), p, tt.want)
			}
		})
	}
}

func TestValidateHTTP_FollowsARedirectToHTTPSWithoutCheckingTheCertificate(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	c := alpnCertificate(t, &x509.Certificate{DNSNames: []string{"expired.test"}})
	s.certs["a.localhost"] = c
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Redirect(w, r, "https://a.localhost/there", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "tok.thumb")
	}
	records, p := ca.validate(t.Context(), job(challengeHTTP, "a.localhost"))
	if p != nil || len(records) != 2 {
		t.Errorf("got %v with records %+v", p, records)
	}
}

func TestValidate_SaysWhenNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, ln.Close())
	ca := quietCA(t, Config{HTTPAddr: ln.Addr().String(), TLSAddr: ln.Addr().String(), DNSAddr: ln.Addr().String()})
	for kind, want := range map[string]string{challengeHTTP: "connection", challengeTLS: "connection", challengeDNS: "dns"} {
		if _, p := ca.validate(t.Context(), job(kind, "a.localhost")); p.kind() != want {
			t.Errorf("%s: got %v, want %s", kind, p, want)
		}
	}
}

func TestValidate_EndsWithTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(ctx context.Context, network, addr string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends when the CA closes its end
			return ours, nil
		}
		ca := quietCA(t, Config{HTTPAddr: "127.0.0.1:80", TLSAddr: "127.0.0.1:443", Dial: silent})
		for _, kind := range []string{challengeHTTP, challengeTLS} {
			begin := time.Now()
			_, p := ca.validate(t.Context(), job(kind, "a.localhost"))
			if p.kind() != "connection" || time.Since(begin) != validationTimeout {
				t.Errorf("%s: got %v after %v", kind, p, time.Since(begin))
			}
		}
	})
}

// alpnCertificate signs a template by its own key.
func alpnCertificate(t *testing.T, tmpl *x509.Certificate) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl.SerialNumber = big.NewInt(1)
	tmpl.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func acmeExtension(t *testing.T, keyAuth string, critical bool) []pkix.Extension {
	t.Helper()
	sum := sha256.Sum256([]byte(keyAuth))
	value, err := asn1.Marshal(sum[:])
	must(t, err)
	return []pkix.Extension{{Id: acmeIdentifierOID, Critical: critical, Value: value}}
}

func TestValidateTLS_TakesOnlyTheChallengeCertificate(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	good := acmeExtension(t, "tok.thumb", true)
	name := []string{"a.localhost"}
	otherSigner := alpnCertificate(t, &x509.Certificate{DNSNames: name, ExtraExtensions: good})
	authority, err := newAuthority(time.Now())
	must(t, err)
	signedKey := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: name, ExtraExtensions: good, NotAfter: time.Now().Add(time.Hour),
	}, authority.intermediate, signedKey.Public(), authority.intermediateKey)
	must(t, err)
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		want string
	}{
		{"right", otherSigner, "valid"},
		{"name in capitals", alpnCertificate(t, &x509.Certificate{DNSNames: []string{"A.LOCALHOST"}, ExtraExtensions: good}), "valid"},
		{"no certificate", nil, "tls"},
		{"no extension", alpnCertificate(t, &x509.Certificate{DNSNames: name}), "unauthorized"},
		{"extension not critical", alpnCertificate(t, &x509.Certificate{DNSNames: name, ExtraExtensions: acmeExtension(t, "tok.thumb", false)}), "unauthorized"},
		{"digest of something else", alpnCertificate(t, &x509.Certificate{DNSNames: name, ExtraExtensions: acmeExtension(t, "tok.other", true)}), "unauthorized"},
		{"another name", alpnCertificate(t, &x509.Certificate{DNSNames: []string{"b.localhost"}, ExtraExtensions: good}), "unauthorized"},
		{"a second name", alpnCertificate(t, &x509.Certificate{DNSNames: []string{"a.localhost", "b.localhost"}, ExtraExtensions: good}), "unauthorized"},
		{"an address beside the name", alpnCertificate(t, &x509.Certificate{DNSNames: name, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtraExtensions: good}), "unauthorized"},
		{"signed by another", &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signedKey}, "unauthorized"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.mu.Lock()
			s.certs["a.localhost"] = tt.cert
			s.mu.Unlock()
			if _, p := ca.validate(t.Context(), job(challengeTLS, "a.localhost")); p.kind() != tt.want {
				t.Errorf("got %s (%v), want %s", p.kind(), p, tt.want)
			}
		})
	}
}

func TestValidateTLS_WantsTheProtocol(t *testing.T) {
	cert := alpnCertificate(t, &x509.Certificate{DNSNames: []string{"a.localhost"}, ExtraExtensions: acmeExtension(t, "tok.thumb", true)})
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}}) // no ALPN at all
	must(t, err)
	srv := &http.Server{}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	ca := quietCA(t, Config{TLSAddr: ln.Addr().String(), HTTPAddr: ln.Addr().String()})
	if _, p := ca.validate(t.Context(), job(challengeTLS, "a.localhost")); p.kind() != "unauthorized" {
		t.Errorf("got %v", p)
	}
}

func TestReverseName(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1":   "1.0.0.127.in-addr.arpa",
		"2001:db8::1": "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := reverseName(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

// startDNS answers TXT questions from a function; a name that it does not know does not exist.
func startDNS(t *testing.T, lookup func(name string) ([]string, bool)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		texts, ok := lookup(strings.ToLower(q.Question[0].Name))
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, s := range texts {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{s}})
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = srv.Shutdown(); <-done })
	return conn.LocalAddr().String()
}

func TestValidateDNS_AsksTheConfiguredResolver(t *testing.T) {
	sum := sha256.Sum256([]byte("tok.thumb"))
	digest := base64.RawURLEncoding.EncodeToString(sum[:])
	records := map[string][]string{
		"_acme-challenge.good.test.":  {"something else", digest},
		"_acme-challenge.wrong.test.": {"something else"},
	}
	addr := startDNS(t, func(name string) ([]string, bool) { texts, ok := records[name]; return texts, ok })
	ca := quietCA(t, Config{DNSAddr: addr})
	for name, want := range map[string]string{"good.test": "valid", "wrong.test": "unauthorized", "none.test": "unauthorized"} {
		if _, p := ca.validate(t.Context(), job(challengeDNS, name)); p.kind() != want {
			t.Errorf("%s: got %v, want %s", name, p, want)
		}
	}
	p := newPoster(t, ca)
	o := p.post("/v2/new-order", identifiers("*.good.test"))
	o.want(t, 201, "")
	z := p.post(o.body["authorizations"].([]any)[0].(string), nil)
	challenges, _ := z.body["challenges"].([]any)
	if z.body["wildcard"] != true || len(challenges) != 1 || challenges[0].(map[string]any)["type"] != challengeDNS {
		t.Errorf("authorization is %s", z.raw)
	}
}

func TestChallenge_FailureIsShownOnAuthorizationAndOrder(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{RetryAfter: time.Second})
	client := newClient(t, ca, newKey(t))
	register(t, client)
	o, err := client.AuthorizeOrder(t.Context(), ids("a.localhost"))
	must(t, err)
	z, err := client.GetAuthorization(t.Context(), o.AuthzURLs[0])
	must(t, err)
	tried, untried := z.Challenges[0], z.Challenges[1]
	_, err = client.Accept(t.Context(), tried)
	must(t, err)
	for z.Status == statusPending {
		z, err = client.GetAuthorization(t.Context(), o.AuthzURLs[0])
		must(t, err)
	}
	if z.Status != statusInvalid || len(z.Challenges) != 1 || z.Challenges[0].Type != tried.Type || z.Challenges[0].Error == nil {
		t.Errorf("authorization is %+v", z)
	}
	o, err = client.GetOrder(t.Context(), o.URI)
	must(t, err)
	if o.Status != statusInvalid || o.Error == nil || !strings.HasPrefix(o.Error.ProblemType, namespaceV2) {
		t.Errorf("order is %+v", o)
	}
	_, err = client.Accept(t.Context(), tried)
	must(t, err) // shown as it is
	_, err = client.Accept(t.Context(), untried)
	wantProblem(t, err, http.StatusBadRequest, "malformed")
}
