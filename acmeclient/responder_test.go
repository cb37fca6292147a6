package acmeclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/crypto/acme"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

const token = "DGyRejmCefe7v4NfDGDKfA-_x9"

// present publishes an answer at r.
func present(t *testing.T, r *Responder, typ, identifier string) *published {
	t.Helper()
	var cert *tls.Certificate
	if typ == ChallengeTLSALPN01 {
		made, err := (&acme.Client{Key: newKey(t)}).TLSALPN01ChallengeCert(token, identifier)
		if err != nil {
			t.Fatal(err)
		}
		cert = &made
	}
	p := newPublished(typ, identifier, token, token+".thumbprint", cert)
	if err := r.publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// get asks a handler as a CA does.
func get(h http.Handler, method, host, path string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "http://placeholder"+path, nil)
	req.Host = host
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

func TestResponder_AnswersHTTPForPendingTokensOfTheHostOnly(t *testing.T) {
	store := storage.NewMemory()
	mine, other := NewResponder(store, zaptest.NewLogger(t)), NewResponder(store, zaptest.NewLogger(t))
	name, ip := present(t, mine, ChallengeHTTP01, "www.example.com"), present(t, mine, ChallengeHTTP01, "2001:db8::1")
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for node, r := range map[string]*Responder{"same node": mine, "other node": other} {
		for _, tt := range []struct {
			name, method, host, path string
			ours                     bool
		}{
			{"GET", "GET", "www.example.com", httpPrefix + token, true},
			{"HEAD", "HEAD", "www.example.com", httpPrefix + token, true},
			{"port and capitals", "GET", "WWW.Example.COM.:80", httpPrefix + token, true},
			{"address", "GET", "[2001:db8::1]", httpPrefix + token, true},
			{"address and port", "GET", "[2001:db8:0::1]:80", httpPrefix + token, true},
			{"POST", "POST", "www.example.com", httpPrefix + token, false},
			{"another host", "GET", "example.com", httpPrefix + token, false},
			{"another token", "GET", "www.example.com", httpPrefix + strings.Repeat("a", 30), false},
			{"short token", "GET", "www.example.com", httpPrefix + "abc", false},
			{"long token", "GET", "www.example.com", httpPrefix + strings.Repeat("a", 129), false},
			{"no token", "GET", "www.example.com", httpPrefix + strings.Repeat(".", 30), false},
			{"climbing", "GET", "www.example.com", httpPrefix + "../../" + token, false},
			{"another path", "GET", "www.example.com", "/" + token, false},
		} {
			rec := get(r.HTTP(next), tt.method, tt.host, tt.path)
			if ours := rec.Code == http.StatusOK; ours != tt.ours {
				t.Errorf("%s: %s: status %d", node, tt.name, rec.Code)
			}
			if body := rec.Body.String(); tt.ours && tt.method == "GET" && body != token+".thumbprint" || tt.method == "HEAD" && body != "" {
				t.Errorf("%s: %s: body %q", node, tt.name, body)
			}
		}
	}
	select {
	case <-name.seen:
	default:
		t.Error("nobody noticed the probe")
	}
	mine.retract(t.Context(), name)
	mine.retract(t.Context(), ip)
	if rec := get(mine.HTTP(next), "GET", "www.example.com", httpPrefix+token); rec.Code != http.StatusTeapot {
		t.Errorf("after it was retracted: %d", rec.Code)
	}
}

func TestResponder_AnswersTLSForTheChallengeProtocolOnly(t *testing.T) {
	store := storage.NewMemory()
	mine, other := NewResponder(store, zaptest.NewLogger(t)), NewResponder(store, zaptest.NewLogger(t))
	for _, identifier := range []string{"www.example.com", "192.0.2.7", "2001:db8::1"} {
		present(t, mine, ChallengeTLSALPN01, identifier)
	}
	challenge := []string{"acme-tls/1"}
	for node, r := range map[string]*Responder{"same node": mine, "other node": other} {
		for _, tt := range []struct {
			sni    string
			protos []string
			ours   bool
		}{
			{"www.example.com", challenge, true},
			{"WWW.example.com", challenge, true},
			{"7.2.0.192.in-addr.arpa", challenge, true}, // RFC 8738 §6
			{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", challenge, true},
			{"www.example.com", []string{"acme-tls/1", "h2"}, false},
			{"www.example.com", []string{"h2"}, false},
			{"www.example.com", nil, false},
			{"example.com", challenge, false},
			{"", challenge, false},
		} {
			hello := &tls.ClientHelloInfo{ServerName: tt.sni, SupportedProtos: tt.protos}
			cert, err := r.Certificate(hello)
			if (cert != nil) != tt.ours || err != nil {
				t.Errorf("%s: %q %v: %v, %v", node, tt.sni, tt.protos, cert != nil, err)
			}
			if again, _ := r.Certificate(hello); again != cert {
				t.Errorf("%s: %q: the certificate is made again for each probe", node, tt.sni)
			}
		}
	}
}

func TestResponder_StrangersCannotHammerTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		r := NewResponder(store, zaptest.NewLogger(t))
		h := r.HTTP(http.NotFoundHandler())
		for range 1000 {
			get(h, "GET", "www.example.com", httpPrefix+token)
		}
		if n := store.Count(storagetest.Get, ""); n != 1 {
			t.Errorf("%d reads for one token", n)
		}
		flood := func(ask func(i int)) (reads int) {
			before := store.Count(storagetest.Get, "")
			var all sync.WaitGroup
			for i := range 5000 {
				all.Go(func() { ask(i) })
			}
			all.Wait()
			return store.Count(storagetest.Get, "") - before
		}
		byHTTP := func(i int) { get(h, "GET", "www.example.com", httpPrefix+fmt.Sprintf("%030d", i)) }
		const most = lookupBurst + lookupRate // at once, and while some wait for a second
		if n := flood(byHTTP); n > most {
			t.Errorf("%d reads at once", n)
		}
		if n := flood(func(int) {
			if _, err := r.Certificate(&tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"acme-tls/1"}}); err != nil {
				t.Error(err)
			}
		}); n == 0 || n > most {
			t.Errorf("%d reads by TLS", n)
		}
		time.Sleep(10 * time.Second)
		if n := flood(byHTTP); n > most {
			t.Errorf("%d reads at twice", n)
		}
		for i := range 2 * maxLookups {
			r.remember(fmt.Sprint(i), lookup{}, time.Now())
		}
		if len(r.looked) > maxLookups {
			t.Errorf("%d answers remembered", len(r.looked))
		}
	})
}

// TestResponder_AnswersAllThatACAAsksForAtOnce: a node of a fleet is asked for the answers of the others, each by several vantage points.
func TestResponder_AnswersAllThatACAAsksForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.Get, Latency: 30 * time.Millisecond})
		mine, other := NewResponder(slow, zaptest.NewLogger(t)), NewResponder(slow, zaptest.NewLogger(t))
		const names, points = 300, 5
		for i := range names {
			present(t, mine, ChallengeTLSALPN01, fmt.Sprintf("n%d.example.com", i))
		}
		var missed atomic.Int64
		var all sync.WaitGroup
		for i := range names * points { // 300 a second
			time.Sleep(time.Second / names)
			all.Go(func() {
				hello := &tls.ClientHelloInfo{ServerName: fmt.Sprintf("n%d.example.com", i%names), SupportedProtos: []string{"acme-tls/1"}}
				if cert, err := other.Certificate(hello); cert == nil || err != nil {
					missed.Add(1)
				}
			})
		}
		all.Wait()
		if n := missed.Load(); n != 0 {
			t.Errorf("%d of %d questions were not answered", n, names*points)
		}
	})
}

// TestResponder_StrangersCannotHideAnAnswer: whoever asked for a name before its answer was published does not keep it from the CA.
func TestResponder_StrangersCannotHideAnAnswer(t *testing.T) {
	store := storage.NewMemory()
	mine, other := NewResponder(store, zaptest.NewLogger(t)), NewResponder(store, zaptest.NewLogger(t))
	hello := &tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"acme-tls/1"}}
	if cert, err := other.Certificate(hello); cert != nil || err != nil {
		t.Fatalf("certificate %v, error %v", cert, err)
	}
	present(t, mine, ChallengeTLSALPN01, "www.example.com")
	if cert, err := other.Certificate(hello); cert == nil || err != nil {
		t.Errorf("no answer, error %v", err)
	}
}

// A read that hangs is one of many that do not: whoever asks for an answer hears it from the next.
func TestResponder_LooksAgainWhereAReadHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		mine, other := NewResponder(store, zaptest.NewLogger(t)), NewResponder(store, zaptest.NewLogger(t))
		present(t, mine, ChallengeTLSALPN01, "www.example.com")
		store.Set(storagetest.Fault{Op: storagetest.Get, Times: 2, Hang: true})
		hello := &tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"acme-tls/1"}}
		if cert, err := other.Certificate(hello); cert == nil || err != nil {
			t.Errorf("no answer, error %v", err)
		}
		time.Sleep(time.Minute)
		store.Set(storagetest.Fault{Op: storagetest.Get, Hang: true})
		began := time.Now()
		if cert, err := other.Certificate(hello); cert != nil || err != nil || time.Since(began) != lookupTimeout {
			t.Errorf("from a store that hangs: %v, %v after %v", cert != nil, err, time.Since(began))
		}
	})
}

func TestResponder_StoreThatFailsIsNoAnswer(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.Get})
	r := NewResponder(store, zaptest.NewLogger(t))
	if rec := get(r.HTTP(http.NotFoundHandler()), "GET", "www.example.com", httpPrefix+token); rec.Code != http.StatusNotFound {
		t.Errorf("status %d", rec.Code)
	}
	if cert, err := r.Certificate(&tls.ClientHelloInfo{ServerName: "a.test", SupportedProtos: []string{"acme-tls/1"}}); cert != nil || err != nil {
		t.Errorf("certificate %v, error %v", cert, err)
	}
}

func TestResponder_ForgetsWhatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		r, other := NewResponder(store, zaptest.NewLogger(t)), NewResponder(store, zaptest.NewLogger(t))
		present(t, r, ChallengeHTTP01, "old.example.com")
		time.Sleep(challengeTTL)
		present(t, r, ChallengeHTTP01, "new.example.com")
		for node, r := range map[string]*Responder{"same node": r, "other node": other} {
			if rec := get(r.HTTP(http.NotFoundHandler()), "GET", "old.example.com", httpPrefix+token); rec.Code != http.StatusNotFound {
				t.Errorf("%s: status %d", node, rec.Code)
			}
		}
		if len(r.pending) != 1 {
			t.Errorf("%d in memory", len(r.pending))
		}
		if err := other.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
		if left, _ := store.List(context.Background(), challengePrefix, "", 0); len(left) != 1 {
			t.Errorf("%d in the store", len(left))
		}
	})
}
