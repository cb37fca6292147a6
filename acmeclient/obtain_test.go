package acmeclient

import (
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
