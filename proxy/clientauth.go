package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// ClientAuth is a policy for client certificates. Sites choose one by its name. The zero value lets nobody in and is refused, so that a policy that
// was not read can never become a weaker one (Caddy CVE-2026-27586).
type ClientAuth struct {
	// Name is what Site.ClientAuth refers to. Required.
	Name string

	// CAs are the authorities whose client certificates are accepted, and no others: the system's never are. At least one is required.
	CAs []*x509.Certificate

	// Optional asks for a certificate but lets clients without one in as well. One that is given is verified either way.
	Optional bool

	// Forward tells the upstream who the client is, by the field Client-Cert (RFC 9440 §2.2). What a client says in this field is removed whatever
	// Forward says.
	Forward bool
}

// LoadClientAuth reads a policy from PEM files. mode is "require" or "request". Whatever in the files is not a certificate is an error, and so is a file
// without any: a policy is complete or it is none.
func LoadClientAuth(name string, files []string, mode string) (ClientAuth, error) {
	p := ClientAuth{Name: name}
	switch mode {
	case "require":
	case "request":
		p.Optional = true
	default:
		return ClientAuth{}, fmt.Errorf("client auth %q: mode %q: write \"require\" or \"request\"", name, mode)
	}
	var errs []error
	for _, file := range files {
		more, err := ReadCertificates(file)
		p.CAs = append(p.CAs, more...)
		if err != nil {
			errs = append(errs, fmt.Errorf("client auth %q: read CAs:\n%w", name, err))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, p.check())
	}
	if err := errors.Join(errs...); err != nil {
		return ClientAuth{}, err
	}
	return p, nil
}

func (p *ClientAuth) check() error {
	switch {
	case p.Name == "":
		return errors.New("client auth without a name")
	case len(p.CAs) == 0:
		return fmt.Errorf("client auth %q: no CA: nobody could get in", p.Name)
	case slices.Contains(p.CAs, nil):
		return fmt.Errorf("client auth %q: a CA is missing", p.Name)
	}
	return nil
}

// clientPolicy is a policy that was checked, with what is derived from it.
type clientPolicy struct {
	ClientAuth
	pool  *x509.CertPool
	print string // see fingerprint
}

// clientPolicies checks the policies and those that sites name. All faults are in the error.
func clientPolicies(set Settings) (map[string]*clientPolicy, error) {
	policies := make(map[string]*clientPolicy, len(set.ClientAuth))
	var errs []error
	for _, p := range set.ClientAuth {
		if err := p.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		if policies[p.Name] != nil {
			errs = append(errs, fmt.Errorf("client auth %q is there twice", p.Name))
		}
		pool := x509.NewCertPool()
		for _, ca := range p.CAs {
			pool.AddCert(ca)
		}
		policies[p.Name] = &clientPolicy{ClientAuth: p, pool: pool, print: p.fingerprint()}
	}
	for _, site := range set.Sites {
		if site.ClientAuth == "" {
			continue
		}
		if policies[site.ClientAuth] == nil {
			errs = append(errs, fmt.Errorf("site %q: there is no client auth %q", site.Name, site.ClientAuth))
		}
		if site.Passthrough != nil {
			errs = append(errs, fmt.Errorf("site %q: client certificates cannot be asked for where TLS passes through", site.Name))
		}
	}
	return policies, errors.Join(errs...)
}

// apply makes the handshakes of cfg ask for certificates.
func (p *clientPolicy) apply(cfg *tls.Config) {
	cfg.ClientCAs = p.pool
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if p.Optional {
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
}

// fingerprint differs for policies that let different clients in. Two loads of the same files have the same, whatever the order.
func (p *ClientAuth) fingerprint() string {
	sums := make([]string, 0, len(p.CAs))
	for _, ca := range p.CAs {
		sum := sha256.Sum256(ca.Raw)
		sums = append(sums, string(sum[:]))
	}
	slices.Sort(sums)
	h := sha256.New()
	fmt.Fprintf(h, "optional %v\n", p.Optional)
	for _, sum := range slices.Compact(sums) {
		h.Write([]byte(sum))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// setClientCert writes who the client proved to be over whatever came in, if the site's policy forwards it.
func (x *exchange) setClientCert(h http.Header) {
	if x.site.ClientAuth == "" {
		return
	}
	delete(h, clientCertField)
	delete(h, clientCertChainField)
	if cert := x.conn.clientCert; cert != nil && x.state.policies[x.site.ClientAuth].Forward {
		// RFC 9440 §2.1: the DER of the certificate as a byte sequence of RFC 8941 §3.3.5.
		h[clientCertField] = []string{":" + base64.StdEncoding.EncodeToString(cert.Raw) + ":"}
	}
}

const (
	clientCertField      = "Client-Cert"
	clientCertChainField = "Client-Cert-Chain"
)
