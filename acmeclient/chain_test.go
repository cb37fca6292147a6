package acmeclient

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// topOf returns the last certificate of a chain.
func topOf(t *testing.T, chain [][]byte) *x509.Certificate {
	t.Helper()
	top, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func TestObtain_ChoosesThePreferredChain(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{alternates: 2, intermediates: 2})
	client := func(want string) *Client {
		return newClient(t, p, n, store, func(cfg *Config) { cfg.PreferredChain = want })
	}
	obtained := func(want string) (*x509.Certificate, int) {
		before := p.count("POST " + pathCert)
		cert := obtain(t, client(want), newRequest(t, "www.example.test"))
		return topOf(t, cert.Chain), p.count("POST "+pathCert) - before
	}
	preset, fetched := obtained("")
	if fetched != 1 {
		t.Errorf("%d chains fetched for the default", fetched)
	}
	// Every root is found by asking for one that does not exist and looking at what was fetched.
	roots := []string{preset.Issuer.CommonName}
	o := &order{}
	d, acct, err := c.dialect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = acct
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	o.certificateURL = cert.URL
	if _, err := d.fetch(t.Context(), o); err != nil || len(o.alternates) != 2 {
		t.Fatalf("alternates are %v, error %v", o.alternates, err)
	}
	for _, url := range o.alternates {
		chain, err := d.fetch(t.Context(), &order{certificateURL: url})
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, topOf(t, chain).Issuer.CommonName)
	}
	for i, root := range roots {
		top, fetched := obtained(root)
		if top.Issuer.CommonName != root || fetched != i+1 {
			t.Errorf("root %d: got %q for %q, %d chains fetched", i, top.Issuer.CommonName, root, fetched)
		}
	}
	if top, _ := obtained(strings.ToUpper(roots[1])); top.Issuer.CommonName != roots[1] {
		t.Errorf("in capitals: %q", top.Issuer.CommonName)
	}
	if top, fetched := obtained("Nobody's Root"); top.Issuer.CommonName != roots[0] || fetched != 3 {
		t.Errorf("no such root: %q, %d chains fetched", top.Issuer.CommonName, fetched)
	}

	t.Run("an alternate that fails is left out", func(t *testing.T) {
		p.fail(problemReply("/alternate/1", 500, "serverInternal", "boom"))
		defer p.fail()
		for i, want := range map[int]string{0: roots[1], 2: roots[2]} {
			if top, _ := obtained(want); top.Issuer.CommonName != roots[i] {
				t.Errorf("wanted %q, got %q", want, top.Issuer.CommonName)
			}
		}
	})
}

func TestFitness_OfChains(t *testing.T) {
	key := newKey(t)
	cert := func(subject, issuer string) []byte {
		return namedCert(t, key, subject, issuer)
	}
	leaf, inter := cert("", "Intermediate"), cert("Intermediate", "Root X2")
	cross, self := cert("Root X2", "Root X1"), cert("Root X1", "Root X1")
	for _, tt := range []struct {
		name  string
		chain [][]byte
		want  string
		fits  int
	}{
		{"leads to the root", [][]byte{leaf, inter}, "Root X2", fitsBest},
		{"leads to the root in other letters", [][]byte{leaf, inter}, "root x2", fitsBest},
		{"has the root's name on a cross-signed certificate", [][]byte{leaf, inter, cross}, "Root X2", fitsSomehow},
		{"leads to the signer of the cross-signed one", [][]byte{leaf, inter, cross}, "Root X1", fitsBest},
		{"has the root itself", [][]byte{leaf, inter, cross, self}, "Root X1", fitsBest},
		{"passes the root", [][]byte{leaf, inter, cross, self}, "Root X2", fitsNot},
		{"another", [][]byte{leaf, inter}, "Root X1", fitsNot},
		{"cannot be shorter", [][]byte{leaf, inter}, ChainShortest, fitsBest},
		{"could be shorter", [][]byte{leaf, inter, cross}, ChainShortest, fitsSomehow},
		{"garbage", [][]byte{leaf, {1}}, "Root X1", fitsNot},
	} {
		if got := fitness(tt.chain, tt.want); got != tt.fits {
			t.Errorf("%s: %d, wanted %d", tt.name, got, tt.fits)
		}
	}
}

func TestObtain_PrefersTheShortestChain(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{alternates: 3, intermediates: 4}, func(cfg *Config) { cfg.PreferredChain = ChainShortest })
	cut := map[string]int{"/alternate/1": 0, "/alternate/2": 2, "/alternate/3": 1}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		for suffix, n := range cut {
			if strings.HasSuffix(r.URL.Path, suffix) && resp.Code == http.StatusOK {
				blocks := strings.SplitAfter(resp.Body.String(), "-----END CERTIFICATE-----\n")
				blocks = slices.DeleteFunc(blocks, func(s string) bool { return strings.TrimSpace(s) == "" })
				resp.Body = bytes.NewBufferString(strings.Join(blocks[:len(blocks)-n], ""))
			}
		}
	})
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	if len(cert.Chain) != 3 || p.count("POST "+pathCert) != 4 { // of 5, 5, 3 and 4
		t.Errorf("%d certificates after %d chains", len(cert.Chain), p.count("POST "+pathCert))
	}
}

// namedCert is a certificate with these names and otherwise of no use.
func namedCert(t *testing.T, key *ecdsa.PrivateKey, subject, issuer string) []byte {
	t.Helper()
	name := func(cn string) pkix.Name { return pkix.Name{CommonName: cn} }
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name(subject), NotAfter: time.Now().Add(time.Hour)}
	return issueCert(t, tmpl, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: name(issuer)}, key.Public(), key).Raw
}
