package devca

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"time"
)

// reasonKeyCompromise is that of RFC 5280 §5.3.1.
const reasonKeyCompromise = 1

// revocationReasons are what a subscriber may give (Baseline Requirements section 7.2.2).
var revocationReasons = []int{0, 1, 3, 4, 5, 9}

// serveRevoke: RFC 8555 §7.6.
func (ca *CA) serveRevoke(c *call) (*reply, error) {
	var req struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	der, err := base64.RawURLEncoding.Strict().DecodeString(req.Certificate)
	if err != nil {
		return nil, malformed("The certificate is not in base64url without padding")
	}
	cert, leaf, err := ca.findIssued(der)
	if err != nil {
		return nil, err
	}
	if !ca.mayRevoke(c, cert, leaf) {
		return nil, unauthorized("The request is signed neither by the certificate's account, nor by its key, nor by an account authorized for its names")
	}
	if !slices.Contains(revocationReasons, req.Reason) {
		return nil, newProblem(http.StatusBadRequest, "badRevocationReason", "Reason %d is not allowed", req.Reason)
	}
	already := newProblem(http.StatusBadRequest, "alreadyRevoked", "The certificate is revoked already")
	if err := ca.revoke(cert, req.Reason, already); err != nil {
		return nil, err
	}
	ca.logf("v2 account %s: revoked %s, serial %s, reason %d", c.signer(), describe(cert.Names), cert.Serial, req.Reason)
	return answer(http.StatusOK, nil), nil
}

// findIssued: the very bytes that were issued, not merely the serial.
func (ca *CA) findIssued(der []byte) (*certificate, *x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, malformed("The certificate could not be parsed")
	}
	cert := ca.state.certificate(serialString(leaf))
	if cert == nil || !slices.Equal(cert.DER, der) {
		return nil, nil, notFound("The certificate was not issued here")
	}
	return cert, leaf, nil
}

func (ca *CA) revoke(cert *certificate, reason int, already *problem) error {
	err := ca.changeCertificate(cert, func(cert *certificate) error {
		if !cert.RevokedAt.IsZero() {
			return already
		}
		cert.RevokedAt, cert.Reason = time.Now().UTC(), reason
		return nil
	})
	if err == nil && reason == reasonKeyCompromise {
		ca.state.mu.Lock()
		defer ca.state.mu.Unlock()
		ca.state.blocked[spkiOf(cert.DER)] = true
	}
	return err
}

// mayRevoke: the account that issued, the certificate's key, or "an account that holds authorizations for all of the identifiers in the certificate".
func (ca *CA) mayRevoke(c *call, cert *certificate, leaf *x509.Certificate) bool {
	if c.acct == nil {
		return publicKeyIs(leaf.PublicKey, c.key.Key)
	}
	if c.acct.ID == cert.Account {
		return true
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	now := time.Now()
	for _, n := range cert.Names {
		if ca.state.reusableLocked(c.acct.ID, n, statusValid, now) == nil {
			return false
		}
	}
	return true
}

func (c *call) signer() string {
	if c.acct == nil {
		return "none (certificate key)"
	}
	return formatID(c.acct.ID)
}

func publicKeyIs(a, b crypto.PublicKey) bool {
	pub, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(b)
}
