package devca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// serveFinalize: RFC 8555 §7.4. The answer is the valid order or, with Config.ProcessingTime, one in processing.
func (ca *CA) serveFinalize(c *call) (*reply, error) {
	var req struct {
		CSR string `json:"csr"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	der, err := base64.RawURLEncoding.Strict().DecodeString(req.CSR)
	if err != nil {
		return nil, malformed("The CSR is not in base64url without padding")
	}
	o, err := ca.orderToFinalize(c)
	if err != nil {
		return nil, err
	}
	csr, names, err := ca.checkCSR(der)
	if err == nil && !sameNames(names, o.names) {
		err = badCSR("The CSR is for %q, the order for %q", describe(names), describe(o.names))
	}
	if err != nil {
		return nil, err // the order stays ready
	}
	if err := ca.beginProcessing(c); err != nil {
		return nil, err
	}
	if ca.cfg.ProcessingTime == 0 {
		ca.finish(o, csr)
	} else {
		ca.work(func(ctx context.Context) {
			select {
			case <-time.After(ca.cfg.ProcessingTime):
				ca.finish(o, csr)
			case <-ctx.Done():
			}
		})
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	return ca.replyOrderLocked(c, http.StatusOK, o), nil
}

func (ca *CA) orderToFinalize(c *call) (*order, error) {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	o, err := ca.orderLocked(c)
	if err != nil {
		return nil, err
	}
	if s := o.statusAt(time.Now()); s != statusReady {
		// "a request to finalize an order […] MUST be rejected with […] 403 (Forbidden) and […] orderNotReady".
		return nil, newProblem(http.StatusForbidden, "orderNotReady", "The order is %s", s)
	}
	return o, nil
}

// beginProcessing is the one step in which two finalize requests for one order meet; the second finds it not ready.
func (ca *CA) beginProcessing(c *call) error {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	o, err := ca.orderLocked(c)
	if err != nil {
		return err
	}
	if s := o.statusAt(time.Now()); s != statusReady {
		return newProblem(http.StatusForbidden, "orderNotReady", "The order is %s", s)
	}
	o.processing = true
	return nil
}

// finish issues and makes the order valid, or invalid if the CA could not.
func (ca *CA) finish(o *order, csr *x509.CertificateRequest) {
	life := ca.cfg.Lifetime
	if p := ca.cfg.Profiles[o.profile]; p.Lifetime != 0 {
		life = p.Lifetime
	}
	cert, err := ca.issue(o.account, o.id, o.names, csr.PublicKey, life)
	if err == nil && o.replaces != "" {
		err = ca.storeReplaced(o)
	}
	ca.state.mu.Lock()
	o.processing = false
	if err != nil {
		o.err = newProblem(http.StatusInternalServerError, "serverInternal", "The certificate could not be issued; the CA's log says why")
	} else {
		o.serial = cert.Serial
	}
	ca.state.mu.Unlock()
	if err != nil {
		ca.logf("v2 account %d order %d: issuing for %s: %v", o.account, o.id, describe(o.names), err)
		return
	}
	ca.logIssued(dialectV2, cert)
}

func (ca *CA) logIssued(dialect string, cert *certificate) {
	which := "" // v1 has no orders
	if cert.Order != 0 {
		which = fmt.Sprintf(" order %d", cert.Order)
	}
	leaf, err := x509.ParseCertificate(cert.DER)
	if err != nil {
		return // cannot happen: made here
	}
	ca.logf("%s account %d%s: issued %s, serial %s, until %s", dialect, cert.Account, which, describe(cert.Names), cert.Serial,
		leaf.NotAfter.Format(time.RFC3339))
}

// issue signs and stores a certificate. It is on disk before anybody can see it.
func (ca *CA) issue(acct, order int64, names []identifier, pub crypto.PublicKey, life time.Duration) (*certificate, error) {
	leaf, err := ca.authority.issue(names, pub, time.Now(), life)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert := &certificate{
		Serial: serialString(leaf), Account: acct, Order: order, Names: names, DER: leaf.Raw, Chain: ca.authority.chain(leaf.Raw),
		IssuedAt: time.Now().UTC(),
	}
	if err := ca.changeCertificate(cert, nil); err != nil {
		return nil, err
	}
	ca.stats.certificate()
	return cert, nil
}

func serialString(c *x509.Certificate) string { return fmt.Sprintf("%036x", c.SerialNumber) }

func badCSR(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "badCSR", format, args...)
}

// checkCSR parses a CSR and returns the names it asks for, those of the subject included.
func (ca *CA) checkCSR(der []byte) (*x509.CertificateRequest, []identifier, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, badCSR("The CSR could not be parsed")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, nil, badCSR("The CSR's signature is wrong")
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 {
		return nil, nil, badCSR("The CSR asks for mail addresses or URIs")
	}
	if why := weakKey(csr.PublicKey); why != "" {
		return nil, nil, badCSR("The CSR's key is refused: %s", why)
	}
	if err := ca.keyFault(csr); err != nil {
		return nil, nil, err
	}
	return csr, csrNames(csr), nil
}

// keyFault: RFC 8555 §11.1: an account key MUST NOT be a certificate's. And a key that was revoked as compromised stays so.
func (ca *CA) keyFault(csr *x509.CertificateRequest) error {
	if ca.state.accountByKey(&jose.JSONWebKey{Key: csr.PublicKey}) != nil {
		return badCSR("The CSR's key is an account key")
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	if ca.state.blocked[spkiHash(csr.RawSubjectPublicKeyInfo)] {
		return badCSR("The CSR's key was reported as compromised")
	}
	return nil
}

func csrNames(csr *x509.CertificateRequest) []identifier {
	var names []identifier
	add := func(n identifier) {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if cn := csr.Subject.CommonName; cn != "" {
		if ip := net.ParseIP(cn); ip != nil {
			add(identifier{identIP, ip.String()})
		} else {
			add(identifier{identDNS, strings.ToLower(cn)})
		}
	}
	for _, n := range csr.DNSNames {
		add(identifier{identDNS, strings.ToLower(n)})
	}
	for _, ip := range csr.IPAddresses {
		add(identifier{identIP, ip.String()})
	}
	return names
}

func sameNames(a, b []identifier) bool {
	if len(a) != len(b) {
		return false
	}
	for _, n := range a {
		if !slices.Contains(b, n) {
			return false
		}
	}
	return true
}

func spkiHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

func spkiOf(der []byte) string {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "" // blocks nothing
	}
	return spkiHash(c.RawSubjectPublicKeyInfo)
}

// serveCertificate: RFC 8555 §7.4.2; the chain as PEM.
func (ca *CA) serveCertificate(c *call) (*reply, error) {
	if err := c.postAsGet(); err != nil {
		return nil, err
	}
	cert := ca.state.certificate(c.id)
	if cert == nil {
		return nil, notFound("There is no certificate %q", c.id)
	}
	if cert.Account != c.acct.ID {
		return nil, unauthorized("The certificate is another account's")
	}
	a := answer(http.StatusOK, nil)
	a.raw, a.ctype = []byte(cert.Chain), "application/pem-certificate-chain"
	return a, nil
}
