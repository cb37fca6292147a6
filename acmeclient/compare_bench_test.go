package acmeclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"testing"

	"github.com/mholt/acmez/v3"
	acmezacme "github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"golang.org/x/crypto/acme"

	"gatelodge/storage"
)

// BenchmarkIssue compares issuances, one name by http-01, with the account known and a nonce in hand: ours, x/crypto/acme's own flow and acmez's, at the same
// pebble. requests/op is exact; times only compare within one run, with
//
//	go test -run '^$' -bench Issue -benchtime 5x ./acmeclient
func BenchmarkIssue(b *testing.B) {
	for _, ca := range []struct {
		name    string
		options pebbleOptions
	}{
		{"without Retry-After", pebbleOptions{}},
		{"Retry-After of orders 3 s", pebbleOptions{retryOrder: 3}}, // Let's Encrypt's
	} {
		for _, client := range []struct {
			name string
			open func(b *testing.B, p *pebble, n *node) func(name string) error
		}{
			{"ours", openOurs}, {"xcrypto", openXCrypto}, {"acmez", openAcmez},
		} {
			b.Run(ca.name+"/"+client.name, func(b *testing.B) {
				n := newNode(b, storage.NewMemory())
				p := newPebble(b, n, ca.options)
				issue := client.open(b, p, n)
				if err := issue("warm.example.test"); err != nil {
					b.Fatal(err)
				}
				before, i := p.count(), 0
				for b.Loop() {
					i++
					if err := issue(fmt.Sprintf("n%d.example.test", i)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(p.count()-before)/float64(i), "requests/op")
			})
		}
	}
}

func benchKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func (p *pebble) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}}
}

func openOurs(b *testing.B, p *pebble, n *node) func(string) error {
	c := newClient(b, p, n, n.responder.store, func(cfg *Config) {
		cfg.Challenges, cfg.Logger = []string{ChallengeHTTP01}, zap.NewNop()
	})
	c.pace = defaultPace()
	return func(name string) error {
		_, err := c.Obtain(b.Context(), newRequest(b, name))
		return err
	}
}

func openXCrypto(b *testing.B, p *pebble, n *node) func(string) error {
	c := &acme.Client{Key: benchKey(b), DirectoryURL: p.url, HTTPClient: p.httpClient()}
	if _, err := c.Register(b.Context(), &acme.Account{}, acme.AcceptTOS); err != nil {
		b.Fatal(err)
	}
	return func(name string) error { return issueByXCrypto(b.Context(), c, n, name, newRequest(b, name).CSR) }
}

// issueByXCrypto is the flow of x/crypto/acme's documentation and of autocert.
func issueByXCrypto(ctx context.Context, c *acme.Client, n *node, name string, csr []byte) error {
	o, err := c.AuthorizeOrder(ctx, acme.DomainIDs(name))
	if err != nil {
		return err
	}
	for _, url := range o.AuthzURLs {
		z, err := c.GetAuthorization(ctx, url)
		if err != nil {
			return err
		}
		for _, ch := range z.Challenges {
			if ch.Type != ChallengeHTTP01 {
				continue
			}
			answer, err := c.HTTP01ChallengeResponse(ch.Token)
			if err != nil {
				return err
			}
			published := newPublished(ChallengeHTTP01, name, ch.Token, answer, nil)
			if err := n.responder.publish(ctx, published); err != nil {
				return err
			}
			defer n.responder.retract(ctx, published)
			if _, err := c.Accept(ctx, ch); err != nil {
				return err
			}
		}
		if _, err := c.WaitAuthorization(ctx, url); err != nil {
			return err
		}
	}
	if o, err = c.WaitOrder(ctx, o.URI); err != nil {
		return err
	}
	_, _, err = c.CreateCertFromOrder(ctx, o, csr, true)
	return err
}

func openAcmez(b *testing.B, p *pebble, n *node) func(string) error {
	c := acmez.Client{
		Client:           &acmezacme.Client{Directory: p.url, HTTPClient: p.httpClient()},
		ChallengeSolvers: map[string]acmez.Solver{ChallengeHTTP01: acmezSolver{n.responder}},
	}
	account, err := c.NewAccount(b.Context(), acmezacme.Account{TermsOfServiceAgreed: true, PrivateKey: benchKey(b)})
	if err != nil {
		b.Fatal(err)
	}
	return func(name string) error {
		_, err := c.ObtainCertificateForSANs(b.Context(), account, benchKey(b), []string{name})
		return err
	}
}

// acmezSolver publishes as we do.
type acmezSolver struct{ responder *Responder }

func (s acmezSolver) Present(ctx context.Context, ch acmezacme.Challenge) error {
	return s.responder.publish(ctx, newPublished(ChallengeHTTP01, ch.Identifier.Value, ch.Token, ch.KeyAuthorization, nil))
}

func (s acmezSolver) CleanUp(ctx context.Context, ch acmezacme.Challenge) error {
	s.responder.retract(ctx, newPublished(ChallengeHTTP01, ch.Identifier.Value, ch.Token, ch.KeyAuthorization, nil))
	return nil
}
