package acmeclient

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// finalize asks for the certificate. The answer is the certificate itself, or empty with the place where it will be. It is not repeated here: v1 cannot be asked
// whether the CSR arrived.
func (d *v1) finalize(ctx context.Context, o *order, csr []byte) error {
	const op = "finalize the order"
	ex, body, err := d.post(ctx, op, endpointNewCert, d.dir.endpoints["new-cert"], struct {
		Resource string `json:"resource"`
		CSR      string `json:"csr"`
	}{"new-cert", base64.RawURLEncoding.EncodeToString(csr)})
	if err != nil {
		return err
	}
	o.certificateURL, _ = ex.location() // some servers give none, with the certificate
	if o.took(ex, body) {
		return nil
	}
	if o.certificateURL == "" {
		return d.unreadable(op, ex, "it is no certificate, and does not say where one will be")
	}
	o.status = statusProcessing // also if what came is none: it is read again
	return nil
}

// took reports whether the body is the certificate, and keeps it.
func (o *order) took(ex *exchange, body []byte) bool {
	o.retryAfter, _ = retryAfter(ex.header, time.Now())
	if _, err := x509.ParseCertificate(body); err != nil {
		return false
	}
	o.status, o.leaf, o.leafURL, o.issuers = statusValid, body, ex.url, links(ex.header, "up", ex.url)
	return true
}

// readCertificate looks where the certificate will be: 202 and an empty body as long as it is not.
func (d *v1) readCertificate(ctx context.Context, o *order) error {
	const op = "fetch the certificate"
	ex, body, err := d.get(ctx, op, endpointCertificate, o.certificateURL)
	if err != nil {
		return err
	}
	switch {
	case o.took(ex, body):
		return nil
	case ex.status == http.StatusAccepted || len(body) == 0:
		o.status = statusProcessing
		return nil
	}
	return d.unreadable(op, ex, "it is no certificate in DER")
}

// fetch returns the certificate and follows its "up" links to its issuers, as far as they lead: no further than a chain may be long, to no other hosts than those
// of the directory, and never round.
func (d *v1) fetch(ctx context.Context, o *order) ([][]byte, error) {
	const op = "fetch the issuer's certificate"
	if o.leaf == nil {
		if err := d.readCertificate(ctx, o); err != nil {
			return nil, err
		}
		if o.leaf == nil {
			return nil, &Problem{CA: d.wire.ca, Op: "fetch the certificate", Detail: "it is not there yet", Advice: "it is fetched later", scope: ScopeCA}
		}
	}
	chain, issuers := [][]byte{o.leaf}, o.issuers
	var followed []string
	for len(issuers) > 0 {
		next := issuers[0]
		if slices.Contains(followed, next) {
			return nil, d.misled(op, next, "the chain's links lead round")
		}
		if len(chain) == maxChain {
			return nil, d.misled(op, next, fmt.Sprintf("the chain is longer than %d certificates", maxChain))
		}
		if !d.isOurs(next, o.leafURL) {
			return nil, d.misled(op, next, "the chain leads to another host")
		}
		followed = append(followed, next)
		ex, body, err := d.get(ctx, op, endpointCertificate, next)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(body)
		if err != nil {
			return nil, d.unreadable(op, ex, "it is no certificate in DER")
		}
		chain, issuers = append(chain, body), links(ex.header, "up", ex.url)
		if cert.CheckSignatureFrom(cert) == nil {
			break // the root has none above it
		}
	}
	return chain, nil
}

func (d *v1) misled(op, target, why string) error {
	err := &urlError{target, why}
	return &Problem{CA: d.wire.ca, Op: op, Err: err, Advice: networkAdvice(err), scope: ScopeCA}
}

// isOurs reports whether a URL is on the host that gave the certificate, or on one that the directory names.
func (d *v1) isOurs(target string, giver *url.URL) bool {
	u, err := url.Parse(target)
	if err != nil {
		return false
	}
	if giver != nil && strings.EqualFold(u.Host, giver.Host) {
		return true
	}
	for _, endpoint := range d.dir.endpoints {
		if e, err := url.Parse(endpoint); err == nil && strings.EqualFold(u.Host, e.Host) {
			return true
		}
	}
	return false
}

// revoke revokes a certificate, signed by its own key or, with a nil key, by the account. That it is revoked already is 409 over v1.
func (d *v1) revoke(ctx context.Context, cert []byte, key crypto.Signer, reason int) error {
	const op = "revoke the certificate"
	target := d.dir.endpoints["revoke-cert"]
	if target == "" {
		return d.lacks(op, "revoke-cert", "ask the CA how else it revokes")
	}
	if key == nil {
		key = d.account.key
	}
	return d.wire.retryQuickly(ctx, func() error {
		ex, _, err := d.postAs(ctx, key, op, endpointRevokeV1, target, struct {
			Resource    string `json:"resource"`
			Certificate string `json:"certificate"`
			Reason      int    `json:"reason,omitempty"` // RFC 5280 §5.3.1; 0 is unspecified
		}{"revoke-cert", base64.RawURLEncoding.EncodeToString(cert), reason})
		if ex != nil && ex.status == http.StatusConflict {
			return nil
		}
		return err
	})
}
