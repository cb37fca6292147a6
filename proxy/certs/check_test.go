package certs

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestCheckIssued_RefusesWhatWasNotAskedFor(t *testing.T) {
	other := newFakeCA(t, "other")
	for _, c := range []struct {
		why    string
		change func(*x509.Certificate)
		chain  func([][]byte) [][]byte
		key    bool // another key
		want   string
	}{
		{why: "all is well"},
		{why: "another key", key: true, want: "another key"},
		{why: "no certificate", chain: func([][]byte) [][]byte { return nil }, want: "empty"},
		{why: "not a certificate", chain: func(c [][]byte) [][]byte { return [][]byte{c[0][:100]} }, want: "parse"},
		{why: "another name", change: func(c *x509.Certificate) { c.DNSNames = []string{"b.example.com"} }, want: "is for"},
		{why: "one name more", change: func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "b.example.com") }, want: "is for"},
		{why: "ended", change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, want: "ended"},
		{why: "not yet begun", change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, want: "future"},
		{why: "a clock a little ahead", change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(5 * time.Minute) }},
		{why: "another issuer behind it", chain: func(c [][]byte) [][]byte { return [][]byte{c[0], other.cert.Raw} }, want: "issued by"},
		{why: "the chain in the wrong order", chain: func(c [][]byte) [][]byte { return [][]byte{c[1], c[0]} }, want: "another key"},
		{why: "the leaf alone", chain: func(c [][]byte) [][]byte { return c[:1] }},
	} {
		t.Run(c.why, func(t *testing.T) {
			ca := newFakeCA(t, "ca")
			ca.change = c.change
			key, err := newPendingKey([]string{"a.example.com"}, ecdsaP256, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			issued, err := ca.Issue(t.Context(), &Request{Names: key.Names, CSR: key.CSR})
			if err != nil {
				t.Fatal(err)
			}
			chain, public := issued.Chain, key.private.Public()
			if c.chain != nil {
				chain = c.chain(chain)
			}
			if c.key {
				public = other.key.Public()
			}
			_, err = checkIssued(chain, public, key.Names, time.Now())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
