package devca

import (
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"
)

// base64V1 decodes base64url, tolerating padding as Boulder did.
func base64V1(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

// serveNewCert issues at once, for names with a valid authorization each: 201 with the certificate itself. With Config.ProcessingTime it is 202 with an
// empty body and a Location to poll, which the draft allowed and Boulder never did.
func (ca *CA) serveNewCert(c *call) (*reply, error) {
	if err := ca.verifyV1(c, registered, "new-cert"); err != nil {
		return nil, err
	}
	if err := c.agreed(); err != nil {
		return nil, err
	}
	csr, err := c.csrV1()
	if err != nil {
		return nil, err
	}
	cert, err := ca.issueV1(c, csr)
	if err != nil {
		return nil, doing("Error creating new cert", err)
	}
	ca.stats.order(cert.Names)
	ca.logIssued(dialectV1, cert)
	a := ca.replyCertV1(c, http.StatusCreated, cert)
	return a.with("Location", c.base+"/acme/cert/"+cert.Serial), nil
}

func (c *call) csrV1() (*x509.CertificateRequest, error) {
	var req struct {
		CSR string `json:"csr"`
	}
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	der, err := base64V1(req.CSR)
	if err != nil {
		return nil, malformed("Error unmarshaling certificate request")
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, malformed("Error parsing certificate request: %v", err)
	}
	return csr, nil
}

func (ca *CA) issueV1(c *call, csr *x509.CertificateRequest) (*certificate, error) {
	names := csrNames(csr)
	switch {
	case publicKeyIs(csr.PublicKey, c.acct.Key.Key):
		return nil, malformed("certificate public key must be different than account key")
	case weakKey(csr.PublicKey) != "":
		return nil, malformed("invalid public key in CSR: %s", weakKey(csr.PublicKey))
	case csr.CheckSignature() != nil:
		return nil, malformed("invalid signature on CSR")
	case len(names) == 0:
		return nil, malformed("at least one DNS name is required")
	case len(names) > maxNames:
		return nil, malformed("CSR contains more than %d DNS names", maxNames)
	case len(csr.IPAddresses) > 0 || len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0:
		return nil, malformed("CSR contains one or more IP address, email address or URI fields")
	}
	if err := ca.keyFault(csr); err != nil {
		return nil, malformed("invalid public key in CSR: the key is known to be compromised or an account's")
	}
	if missing := ca.unauthorizedNames(c.acct.ID, names); len(missing) > 0 {
		return nil, unauthorized("authorizations for these names not found or expired: %s", strings.Join(missing, ", "))
	}
	if err := ca.allowed("new-cert", names); err != nil {
		return nil, err
	}
	return ca.issue(c.acct.ID, 0, names, csr.PublicKey, ca.cfg.Lifetime)
}

// unauthorizedNames are those without a valid authorization of the account.
func (ca *CA) unauthorizedNames(acct int64, names []identifier) []string {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	var missing []string
	for _, n := range names {
		if ca.state.reusableLocked(acct, n, statusValid, time.Now()) == nil {
			missing = append(missing, n.Value)
		}
	}
	slices.Sort(missing)
	return missing
}

// replyCertV1 is the leaf alone; its issuer is one step up.
func (ca *CA) replyCertV1(c *call, status int, cert *certificate) *reply {
	if wait := time.Until(cert.IssuedAt.Add(ca.cfg.ProcessingTime)); ca.cfg.ProcessingTime > 0 && wait > 0 {
		return answer(http.StatusAccepted, nil).with("Retry-After", retryAfter(max(ca.cfg.RetryAfter, time.Second)))
	}
	a := answer(status, nil).with("Link", link(c.base+"/acme/issuer-cert", "up"))
	a.raw, a.ctype = cert.DER, "application/pkix-cert"
	return a
}

func (ca *CA) serveCertV1(c *call) (*reply, error) {
	cert := ca.state.certificate(c.id)
	if cert == nil {
		return nil, notFound("Certificate not found")
	}
	return ca.replyCertV1(c, http.StatusOK, cert), nil
}

// serveIssuerCert has no "up" of its own: the chain ends here, below the root.
func (ca *CA) serveIssuerCert(*call) (*reply, error) {
	a := answer(http.StatusOK, nil)
	a.raw, a.ctype = ca.authority.intermediate.Raw, "application/pkix-cert"
	return a, nil
}

// reasonsV1 names the reasons of RFC 5280 §5.3.1 as Boulder did, for its refusal.
var reasonsV1 = map[int]string{
	2: "cACompromise", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aAcompromise",
}

// serveRevokeV1: signed by the account that issued, by the certificate's key, or by an account that is authorized for all its names.
func (ca *CA) serveRevokeV1(c *call) (*reply, error) {
	if err := ca.verifyV1(c, anyKey, "revoke-cert"); err != nil {
		return nil, err
	}
	if c.acct != nil && c.acct.Status != statusValid {
		return nil, unauthorized("Registration is not valid, has status '%s'", c.acct.Status)
	}
	var req struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason"`
	}
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	der, err := base64V1(req.Certificate)
	if err != nil {
		return nil, malformed("Error unmarshaling JSON")
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		return nil, malformed("Unable to parse revoke certificate DER")
	}
	cert, leaf, err := ca.findIssued(der)
	if err != nil {
		return nil, notFound("No such certificate")
	}
	if !ca.mayRevoke(c, cert, leaf) {
		return nil, unauthorized("Revocation request must be signed by private key of cert to be revoked, by the account key of the account that issued it, " +
			"or by the account key of an account that holds valid authorizations for all names in the certificate.")
	}
	if !slices.Contains([]int{0, 1, 3, 4, 5}, req.Reason) {
		name := reasonsV1[req.Reason]
		if name == "" {
			name = "unknown"
		}
		return nil, malformed("unsupported revocation reason code provided: %s (%d). Supported reasons: unspecified (0), keyCompromise (1), "+
			"affiliationChanged (3), superseded (4), cessationOfOperation (5)", name, req.Reason)
	}
	already := newProblem(http.StatusConflict, "malformed", "Certificate already revoked")
	if err := ca.revoke(cert, req.Reason, already); err != nil {
		return nil, err
	}
	ca.logf("v1 account %s: revoked %s, serial %s, reason %d", c.signer(), describe(cert.Names), cert.Serial, req.Reason)
	return answer(http.StatusOK, nil), nil
}
