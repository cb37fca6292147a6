package acmeclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"
)

func TestObtain_IssuesByEachChallengeType(t *testing.T) {
	for _, typ := range []string{ChallengeTLSALPN01, ChallengeHTTP01} {
		t.Run(typ, func(t *testing.T) {
			c, p, _, store := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.Challenges = []string{typ} })
			for _, names := range [][]string{{"one.example.test"}, {"two.example.test", "three.example.test"}, {"127.0.0.1"}} {
				r := newRequest(t, names...)
				r.Profile = "minute"
				cert := obtain(t, c, r)
				leaf, err := x509.ParseCertificate(cert.Chain[0])
				if err != nil {
					t.Fatal(err)
				}
				if got := leaf.NotAfter.Sub(leaf.NotBefore); got.Seconds() > 61 {
					t.Errorf("the certificate lives for %v, wanted are 60 s", got)
				}
				if cert.Order == "" || cert.URL == "" || cert.Account != c.Status().Account || cert.Protocol != ProtocolV2 {
					t.Errorf("incomplete: %+v", cert)
				}
			}
			if got := p.count("POST " + pathOrder); got != 3 {
				t.Errorf("%d orders for 3 certificates", got)
			}
			for _, prefix := range []string{"acme/pebble/orders/", "acme/challenges/"} {
				if left, _ := store.List(t.Context(), prefix, "", 0); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}

// TestObtain_IssuesForEachKeyType: an RSA and an ECDSA certificate for one name are two orders, for two keys.
func TestObtain_IssuesForEachKeyType(t *testing.T) {
	c, _, _, _ := setup(t, pebbleOptions{})
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "RSA 2048": rsaKey(t, 2048), "RSA 3072": rsaKey(t, 3072)} {
		cert := obtain(t, c, requestFor(t, key, "www.example.test"))
		if public, ok := leafOf(t, cert).PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
			t.Errorf("%s: the certificate is for another key", name)
		}
		if err := c.Revoke(t.Context(), cert.Chain, key, ReasonKeyCompromise); err != nil { // signed by that key
			t.Errorf("%s: revoke: %v", name, err)
		}
	}
}
