package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// onlyRSA makes a client that cannot use ECDSA.
func onlyRSA(c *tls.Config) {
	c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
}

// rsaHello is one as crypto/tls shows it.
func rsaHello(name string) *tls.ClientHelloInfo {
	hello := (&pipeAt{}).hello(name)
	hello.SupportedVersions, hello.SignatureSchemes = []uint16{tls.VersionTLS13}, []tls.SignatureScheme{tls.PSSWithSHA256}
	return hello
}

func newPair(t testing.TB) *house {
	h := newHouse(t)
	h.set.Keys = []string{"ecdsa-p256", "rsa-2048"}
	return h
}

func (h *house) mustRSA(name string) *x509.Certificate {
	h.t.Helper()
	cert, err := hello(h.m, name, h.ca.pool(), onlyRSA)
	if err != nil {
		h.t.Fatalf("handshake of an RSA client for %s: %v", name, err)
	}
	if kind := keyTypeOf(cert.PublicKey); kind != rsa2048 {
		h.t.Fatalf("an RSA client was served with %s", kind)
	}
	return cert
}

// keysAsked counts the attempts for the name and kind of key.
func (h *house) keysAsked(name string, kind keyType) int {
	return len(slices.DeleteFunc(h.ca.asked(name), func(c call) bool { return c.key != kind }))
}

func TestManager_ServesEachClientWithAKeyItCanUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPair(t).listing("a.example.com", "*.wild.example.com")
		h.open()
		time.Sleep(time.Second)
		for _, name := range []string{"a.example.com", "b.wild.example.com"} {
			if kind := keyTypeOf(h.must(name).PublicKey); kind != ecdsaP256 {
				t.Errorf("%s: a client that can use both was served with %s", name, kind)
			}
			if cert := h.mustRSA(name); !h.mustRSA(name).Equal(cert) {
				t.Errorf("%s: two certificates for RSA clients", name)
			}
		}
		h.wantIssued("", 4)
		for _, object := range []string{"certs/a.example.com", "certs/a.example.com+rsa", "certs/_.wild.example.com", "certs/_.wild.example.com+rsa"} {
			if !h.has(object) {
				t.Errorf("no %s", object)
			}
		}
		s, err := h.m.Status(t.Context(), "a.example.com")
		if err != nil || s.Key != "ecdsa-p256" || s.Second == nil || s.Second.Key != "rsa-2048" || s.Second.State != StateServing {
			t.Errorf("%+v, second %+v, %v", s, s.Second, err)
		}
		if got := h.m.Names(); !slices.Equal(got, []string{"*.wild.example.com", "a.example.com"}) {
			t.Errorf("names %v", got)
		}
		for s := range h.m.List() {
			h.storageAgrees(s)
		}
		h.m.Close()
		h.open()
		h.mustRSA("a.example.com")
		h.mustRSA("c.wild.example.com")
		time.Sleep(70 * day)
		h.wantIssued("", 8)
		if h.keysAsked("a.example.com", rsa2048) != 2 {
			t.Error("the second certificate was not renewed")
		}
	})
}

func TestManager_SecondCertificateOfAnOnDemandNameComesWithItsClient(t *testing.T) {
	h := newPair(t)
	h.open()
	h.must("a.example.com")
	h.wantIssued("", 1)
	h.mustRSA("a.example.com")
	h.wantIssued("", 2)
	h.mustRSA("b.example.com") // before any other client
	h.wantIssued("b.example.com", 1)
	h.gate.allow = deny
	if _, err := hello(h.m, "no.example.com", h.ca.pool(), onlyRSA); !errors.Is(err, errNoCertificate) {
		t.Errorf("a denied name: %v", err)
	}
	if last := h.gate.asked[len(h.gate.asked)-1]; last != "no.example.com" {
		t.Errorf("permission was asked for %q", last)
	}
}

func TestManager_AFailureOfTheSecondCertificateNeverTouchesTheMainOne(t *testing.T) {
	for _, failure := range []error{&fakeFailure{scope: ScopeName}, errors.New("500: we do not like this key")} {
		t.Run(failure.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPair(t).listing("a.example.com")
				h.ca.script(func(_ context.Context, r *Request) error {
					if keyOfRequest(r) == rsa2048 {
						return failure
					}
					return nil
				})
				h.open()
				time.Sleep(time.Second)
				main := h.must("a.example.com")
				if _, err := hello(h.m, "a.example.com", h.ca.pool(), onlyRSA); err == nil {
					t.Error("an RSA client was served")
				}
				if h.has(failureObject("a.example.com")) || !h.has(failureObject("a.example.com+rsa")) {
					t.Error("the failure is held against the wrong certificate")
				}
				h.listing("a.example.com", "b.example.com")
				if err := h.m.Apply(h.set); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				h.must("b.example.com")
				s, err := h.m.Status(t.Context(), "a.example.com")
				if err != nil || s.State != StateServing || s.LastFailure != nil || s.Second.State != StateBackingOff || s.Second.LastFailure == nil {
					t.Errorf("%+v, second %+v, %v", s, s.Second, err)
				}
				time.Sleep(65 * day)
				if h.must("a.example.com").Equal(main) {
					t.Error("the main certificate was not renewed")
				}
				h.ca.script(nil)
				time.Sleep(2 * day)
				h.mustRSA("a.example.com")
			})
		})
	}
}

func TestManager_AFailureOfTheMainCertificateLeavesTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPair(t).listing("a.example.com")
		h.ca.script(func(_ context.Context, r *Request) error {
			if keyOfRequest(r) == ecdsaP256 {
				return &fakeFailure{scope: ScopeName}
			}
			return nil
		})
		h.open()
		time.Sleep(time.Second)
		h.mustRSA("a.example.com")
		if kind := keyTypeOf(h.must("a.example.com").PublicKey); kind != rsa2048 {
			t.Errorf("a client that can use both was served with %s", kind)
		}
	})
}

func TestManager_OneReadForAColdHandshakeOfEitherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPair(t).listing("a.example.com", "*.example.com")
		h.open()
		time.Sleep(time.Second)
		for _, name := range []string{"a.example.com", "b.example.com"} {
			for _, kind := range []string{"", "+rsa"} {
				for _, drop := range []string{"a.example.com", "*.example.com"} {
					h.m.cache.drop(drop)
					h.m.cache.drop(drop + "+rsa")
				}
				before := h.store.Count(storagetest.Get, "")
				if kind == "" {
					h.must(name)
				} else {
					h.mustRSA(name)
				}
				if n := h.store.Count(storagetest.Get, "") - before; n != 1 {
					t.Errorf("%s%s: %d reads", name, kind, n)
				}
			}
		}
	})
}

func TestGetCertificate_AllocatesNothingWhenWarmWithTwoKinds(t *testing.T) {
	h := newPair(t).listing("a.example.com", "*.example.com")
	h.open()
	main := (&pipeAt{}).hello("")
	main.SupportedVersions, main.SignatureSchemes = []uint16{tls.VersionTLS13}, []tls.SignatureScheme{tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256}
	old := rsaHello("")
	old.SupportedVersions, old.CipherSuites = []uint16{tls.VersionTLS12}, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	old.SupportedCurves = []tls.CurveID{tls.CurveP256}
	for _, name := range []string{"a.example.com", "b.example.com"} { // so that no key is made in the background
		if _, err := h.m.GetCertificate(rsaHello(name)); err != nil {
			t.Fatal(err)
		}
		h.must(name)
	}
	for want, hellos := range map[keyType][]*tls.ClientHelloInfo{ecdsaP256: {main}, rsa2048: {rsaHello(""), old}} {
		for _, hello := range hellos {
			for _, name := range []string{"a.example.com", "b.example.com"} {
				hello.ServerName = name
				cert, err := h.m.GetCertificate(hello)
				if err != nil || keyTypeOf(cert.Leaf.PublicKey) != want {
					t.Fatalf("%s is served with %v, %v", name, cert, err)
				}
				if n := testing.AllocsPerRun(1000, func() { _, _ = h.m.GetCertificate(hello) }); n != 0 {
					t.Errorf("%s, %s: %v allocations", name, want, n)
				}
			}
		}
	}
}

func TestManager_AChangedKindOfKeyComesWithTheNextCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		h.open()
		first := h.must("a.example.com")
		h.set.Keys = []string{"rsa-2048", "ecdsa-p384"}
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !h.must("a.example.com").Equal(first) {
			t.Error("the certificate in use was replaced")
		}
		if cert, err := h.m.GetCertificate(rsaHello("a.example.com")); err != nil || !cert.Leaf.Equal(first) {
			t.Errorf("an RSA client in between: %v", err) // nothing better is there
		}
		if !h.has("certs/a.example.com+ecdsa") {
			t.Error("no second certificate")
		}
		time.Sleep(65 * day)
		if kind := keyTypeOf(h.must("a.example.com").PublicKey); kind != rsa2048 {
			t.Errorf("renewed with %s", kind)
		}
		h.set.Keys = []string{"rsa-2048"}
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		n := len(h.ca.asked(""))
		time.Sleep(89 * day)
		if more := h.ca.asked("")[n:]; slices.ContainsFunc(more, func(c call) bool { return c.key != rsa2048 }) {
			t.Errorf("a second certificate was renewed that is configured no more: %v", more)
		}
	})
}

func TestManager_NamesTooLongForASecondCertificateHaveTheMainOne(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5) + "abc" // 253 bytes
	h := newPair(t).listing(long)
	h.open()
	h.must(long)
	if t2, ok := h.m.rules.Load().secondOf(target{name: long}); ok {
		t.Errorf("%v", t2)
	}
	if cert, err := h.m.GetCertificate(rsaHello(long)); err != nil || cert == nil {
		t.Errorf("%v", err)
	}
	h.wantIssued("", 1)
}

func TestCache_AHostTooLongForTheSuffixOfTheSecondCertificateTakesNoOthersPlace(t *testing.T) {
	rest := strings.Repeat(strings.Repeat("b", 46)+".", 4) + "b" // 189 bytes
	long := strings.Repeat("a", 63) + "." + rest                 // 253 bytes
	h := newPair(t).listing("*." + rest)
	h.open()
	h.must(long)
	for range 3 {
		cert, err := h.m.GetCertificate(rsaHello(long))
		if err != nil || cert == nil || keyTypeOf(cert.Leaf.PublicKey) != rsa2048 {
			t.Fatalf("%v, %v", cert, err)
		}
	}
	for n := range 4 {
		if e := h.m.cache.get(long[:n]); e != nil {
			t.Errorf("there is an entry for %q, which nobody asked for", long[:n])
		}
	}
	h.m.cache.check(t)
}

func TestPendingFor_MakesAnewWhatIsOfAnotherKind(t *testing.T) {
	h := newHouse(t)
	h.open()
	first, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP256, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP256, nil)
	if err != nil || !sameKey(again.private.Public(), first.private.Public()) || again.foreign {
		t.Errorf("another key, or not known as ours: %v", err)
	}
	other, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP384, nil)
	if err != nil || keyTypeOf(other.private.Public()) != ecdsaP384 {
		t.Errorf("%v", err)
	}
}
