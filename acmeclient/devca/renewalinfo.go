package devca

import (
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"
)

type renewalView struct {
	SuggestedWindow struct {
		Start string `json:"start"`
		End   string `json:"end"`
	} `json:"suggestedWindow"`
}

// renewalInfoPeriod is how often to ask again. RFC 9773 §4.3.2 leaves it to the CA; Let's Encrypt says 6 h.
const renewalInfoPeriod = 6 * time.Hour

// serveRenewalInfo: RFC 9773 §4.
func (ca *CA) serveRenewalInfo(c *call) (*reply, error) {
	cert, err := ca.findByCertID(c.id)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert.DER)
	if err != nil {
		return nil, err
	}
	start, end := ca.window(cert, leaf)
	var v renewalView
	v.SuggestedWindow.Start, v.SuggestedWindow.End = start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339)
	return answer(http.StatusOK, v).with("Retry-After", retryAfter(renewalInfoPeriod)), nil
}

// window is Let's Encrypt's choice unless the configuration has its own: 2/3 of the life, 1/2 below ten days, plus or minus 1 % of it; for a revoked
// certificate an hour to half an hour ago.
func (ca *CA) window(cert *certificate, leaf *x509.Certificate) (start, end time.Time) {
	if !cert.RevokedAt.IsZero() {
		now := time.Now()
		return now.Add(-60 * time.Minute), now.Add(-30 * time.Minute)
	}
	if ca.cfg.RenewalWindow != nil {
		return ca.cfg.RenewalWindow(leaf)
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second
	at := leaf.NotBefore.Add(life / 3 * 2)
	if life < 10*24*time.Hour {
		at = leaf.NotBefore.Add(life / 2)
	}
	// A window is at least two seconds wide: RFC 3339 without fractions, and end must be after start.
	half := max(life/100, time.Second)
	return at.Add(-half), at.Add(half)
}

// findByCertID: RFC 9773 §4.1: the authority key identifier and the serial's DER bytes, both in base64url, joined by a dot.
func (ca *CA) findByCertID(id string) (*certificate, error) {
	aki, serial, ok := strings.Cut(id, ".")
	keyID, err1 := base64.RawURLEncoding.Strict().DecodeString(aki)
	number, err2 := base64.RawURLEncoding.Strict().DecodeString(serial)
	if !ok || err1 != nil || err2 != nil || len(number) == 0 {
		return nil, malformed("%q is not a certificate identifier", id)
	}
	cert := ca.state.certificate(serialString(&x509.Certificate{SerialNumber: new(big.Int).SetBytes(number)}))
	if cert == nil || !slices.Equal(keyID, ca.authority.intermediate.SubjectKeyId) {
		return nil, notFound("There is no certificate %q", id)
	}
	return cert, nil
}

// predecessor finds what an order says it replaces and checks that it may (RFC 9773 §5).
func (ca *CA) predecessor(c *call, o *order) (*certificate, error) {
	old, err := ca.findByCertID(o.replaces)
	if err != nil {
		return nil, err
	}
	if old.Account != c.acct.ID {
		return nil, unauthorized("The certificate to be replaced is another account's")
	}
	if !slices.ContainsFunc(o.names, func(n identifier) bool { return slices.Contains(old.Names, n) }) {
		return nil, malformed("The order has no name in common with the certificate it is to replace")
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	if old.ReplacedBy != 0 {
		// "has not already been marked as replaced by a different Order that is not "invalid"". An unknown order is one of an earlier run.
		by := ca.state.orders[old.ReplacedBy]
		if by == nil || by.statusAt(time.Now()) != statusInvalid {
			return nil, newProblem(http.StatusConflict, "alreadyReplaced", "The certificate is being replaced by order %d already", old.ReplacedBy)
		}
	}
	return old, nil
}

// storeReplaced writes down the mark that makeOrder has set.
func (ca *CA) storeReplaced(o *order) error {
	old, err := ca.findByCertID(o.replaces)
	if err != nil {
		return err
	}
	return ca.changeCertificate(old, func(c *certificate) error {
		c.ReplacedBy = o.id
		return nil
	})
}
