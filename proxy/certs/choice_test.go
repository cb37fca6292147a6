package certs

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"

	"gatelodge/storage/storagetest"
)

// TestManager_ServesEveryKindOfHostWhateverTheCacheHolds goes through all that decides about a certificate, with a cache that holds nothing, little, and everything.
func TestManager_ServesEveryKindOfHostWhateverTheCacheHolds(t *testing.T) {
	h := newPair(t).listing("a.example.com", "*.wild.example.com", "xn--mnchen-3ya.example", "192.0.2.7")
	dir := t.TempDir()
	own := ownFiles(t, h.ca, dir, "own.example.com")
	listed := h.set.Lookup
	h.set.Lookup = func(name string) (Policy, bool) {
		switch name {
		case "own.example.com":
			return Policy{Site: "own", CertFile: filepath.Join(dir, "own.pem"), KeyFile: filepath.Join(dir, "own.key")}, true
		case "customer.example.org":
			return Policy{Site: "*", OnDemand: true}, true
		}
		return listed(name)
	}
	h.set.DefaultName = "a.example.com"
	hosts := map[string]string{ // what the client says, and what its certificate is for
		"a.example.com": "a.example.com", "A.Example.Com.": "a.example.com", "b.wild.example.com": "*.wild.example.com", "c.wild.example.com": "*.wild.example.com",
		"xn--mnchen-3ya.example": "xn--mnchen-3ya.example", "XN--MNCHEN-3YA.example": "xn--mnchen-3ya.example", "": "a.example.com", "customer.example.org": "customer.example.org",
		"own.example.com": "own.example.com", "192.0.2.7": "192.0.2.7",
	}
	for _, budget := range []int64{1, 12 << 10, 1 << 20} {
		h.set.CacheBytes = budget
		h.open()
		for range 3 {
			for sni, want := range hosts {
				for _, kind := range []keyType{ecdsaP256, rsa2048} {
					hello := (&pipeAt{local: "192.0.2.9"}).hello(sni)
					hello.SupportedVersions, hello.SignatureSchemes = []uint16{tls.VersionTLS13}, []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
					if kind == rsa2048 {
						hello.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256}
					}
					cert, err := h.m.GetCertificate(hello)
					if err != nil || cert == nil {
						t.Fatalf("budget %d, %q, %s: %v", budget, sni, kind, err)
					}
					switch {
					case want == "own.example.com":
						if !cert.Leaf.Equal(own) {
							t.Errorf("budget %d, %q: not the site's own certificate", budget, sni)
						}
					case !covers(cert.Leaf, want) || keyTypeOf(cert.Leaf.PublicKey) != kind:
						t.Errorf("budget %d, %q: a certificate for %v %v and %s, not for %s", budget, sni, cert.Leaf.DNSNames, cert.Leaf.IPAddresses, keyTypeOf(cert.Leaf.PublicKey), kind)
					}
				}
			}
		}
		h.m.Close()
	}
	h.wantIssued("", 10+1) // of each kind for five names; the site's own was made by the same CA
}

// TestManager_AMissIsOneReadAndAKnownAbsentNameNone holds what a handshake may cost storage.
func TestManager_AMissIsOneReadAndAKnownAbsentNameNone(t *testing.T) {
	h := newHouse(t)
	h.open()
	for i := range 20 {
		h.must(fmt.Sprintf("n%d.example.com", i))
	}
	h.gate.allow = deny
	for i := range 20 {
		h.m.cache.drop(fmt.Sprintf("n%d.example.com", i))
	}
	before := h.store.Count(storagetest.Get, "certs/")
	for range 3 {
		for i := range 20 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
		for i := range 5 { // a client may bring ten in a moment
			h.refuse(fmt.Sprintf("nobody%d.example.com", i))
		}
	}
	if n := h.store.Count(storagetest.Get, "certs/") - before; n != 20+5 {
		t.Errorf("%d reads of 20 stored names and 5 that are not", n)
	}
}
