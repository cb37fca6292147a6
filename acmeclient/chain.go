package acmeclient

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// ChainShortest, as Config.PreferredChain, saves bytes in each handshake; clients that know only old roots may not trust such a chain.
const ChainShortest = "shortest"

// maxAlternates bounds how many chains are fetched for one certificate.
const maxAlternates = 8

// preferredChain returns the chain for the certificate that Config.PreferredChain asks for. Alternates are fetched only if the CA's default is not such.
// Whatever goes wrong here, there is a certificate, with the default chain.
func (c *Client) preferredChain(ctx context.Context, d dialect, a *attempt, o *order, chain [][]byte) [][]byte {
	want := c.cfg.PreferredChain
	if want == "" {
		return chain
	}
	chosen, best := chain, fitness(chain, want)
	for i, url := range o.alternates {
		if best == fitsBest {
			break
		}
		if i >= maxAlternates || slices.Contains(o.alternates[:i], url) {
			continue
		}
		alternate, err := c.alternate(ctx, d, a, o, url)
		if err != nil {
			c.log.Warn("an alternate chain is left out", zap.Strings("names", a.names), zap.String("url", clean(url)), zap.Error(err))
			continue
		}
		fits := fitness(alternate, want)
		if fits > best || want == ChainShortest && len(alternate) < len(chosen) {
			chosen, best = alternate, fits
		}
	}
	if best == fitsNot {
		c.log.Warn("the CA has no chain as preferred; its default is used", zap.Strings("names", a.names), zap.String("preferred_chain", want))
	}
	return chosen
}

// alternate fetches another chain for the order's certificate, and checks it as the first one was.
func (c *Client) alternate(ctx context.Context, d dialect, a *attempt, o *order, url string) ([][]byte, error) {
	other := *o
	other.certificateURL = url
	chain, err := d.fetch(ctx, &other)
	if err != nil {
		return nil, err
	}
	return checkChain(chain, a.names, a.csr, time.Now())
}

// How well a chain fits a preference.
const (
	fitsNot     = iota
	fitsSomehow // its topmost certificate has the name, or it may be the shortest
	fitsBest    // it leads to the root of the name, or nothing can be shorter
)

// fitness compares a checked chain with the preference. The root itself is usually not in the chain, so it is known as the issuer of the topmost certificate. A
// cross-signed root has its own name as subject, and that of another as issuer: the issuer says which clients trust the chain.
func fitness(chain [][]byte, want string) int {
	if want == ChainShortest {
		if len(chain) <= 2 {
			return fitsBest
		}
		return fitsSomehow
	}
	top, err := x509.ParseCertificate(chain[len(chain)-1])
	switch {
	case err != nil:
		return fitsNot
	case strings.EqualFold(top.Issuer.CommonName, want):
		return fitsBest
	case strings.EqualFold(top.Subject.CommonName, want):
		return fitsSomehow
	}
	return fitsNot
}
