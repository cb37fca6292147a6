package acmeclient

import (
	"testing"

	"gatelodge/acmeclient/devca"
)

func TestV1_IssuesByEachChallenge(t *testing.T) {
	for _, typ := range []string{ChallengeTLSALPN01, ChallengeHTTP01} {
		t.Run(typ, func(t *testing.T) {
			c, o, _, _ := oldSetup(t, devca.Config{}, func(cfg *Config) { cfg.Challenges = []string{typ} })
			cert := obtain(t, c, newRequest(t, "a.localhost", "b.localhost"))
			if cert.Protocol != ProtocolV1 || cert.Order != "" || cert.Account != o.url+"/acme/reg/1" || len(cert.Chain) != 2 || cert.URL == "" {
				t.Errorf("certificate is %+v", cert)
			}
			s := c.Status()
			if s.Negotiation.State != "v1" || !s.Negotiation.Deprecated || s.Negotiation.OrdersV1 != 1 || s.Account != cert.Account {
				t.Errorf("status is %+v", s)
			}
		})
	}
}
