package devca

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// regView is v1's registration object.
type regView struct {
	ID        int64           `json:"id"`
	Key       jose.JSONWebKey `json:"key"`
	Contact   *[]string       `json:"contact,omitempty"`
	Agreement string          `json:"agreement,omitempty"`
	InitialIP string          `json:"initialIp"`
	CreatedAt time.Time       `json:"createdAt"`
	Status    string          `json:"status"`
}

func viewReg(a *account) regView {
	v := regView{ID: a.ID, Key: a.Key, Agreement: a.Terms, InitialIP: a.InitialIP, CreatedAt: a.CreatedAt, Status: a.Status}
	if a.Contact != nil {
		v.Contact = &a.Contact
	}
	return v
}

func (c *call) regURL(id int64) string { return c.base + "/acme/reg/" + formatID(id) }

// withRegLinks adds where to go next and what to agree to.
func (c *call) withRegLinks(a *reply) *reply {
	return a.with("Link", link(c.base+"/acme/new-authz", "next")).with("Link", link(c.base+termsPath, "terms-of-service"))
}

// serveNewReg registers a key. A known one is 409 with its Location, whatever its status.
func (ca *CA) serveNewReg(c *call) (*reply, error) {
	if err := ca.verifyV1(c, anyKey, "new-reg"); err != nil {
		return nil, err
	}
	if c.acct != nil {
		return nil, c.keyInUse()
	}
	if ca.switches.Load().NoNewRegistrations {
		return nil, unauthorized("Account creation on ACMEv1 is disabled. Please upgrade your ACME client to a version that supports ACMEv2 / RFC 8555. " +
			"See https://community.letsencrypt.org/t/end-of-life-plan-for-acmev1/88430 for details.")
	}
	var req struct {
		Contact   []string `json:"contact"`
		Agreement string   `json:"agreement"`
	}
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	if req.Agreement != "" && req.Agreement != c.base+termsPath {
		return nil, c.wrongAgreement(req.Agreement)
	}
	if err := contactProblemV1(req.Contact); err != nil {
		return nil, doing("Error creating new registration", err)
	}
	a, isNew, err := ca.register(c, req.Contact, req.Agreement)
	if err != nil {
		return nil, err
	}
	c.acct = a
	if !isNew {
		return nil, c.keyInUse()
	}
	ca.logf("v1 account %d: registered, %s key", a.ID, algorithmFor(&a.Key))
	return c.withRegLinks(answer(http.StatusCreated, viewReg(a)).with("Location", c.regURL(a.ID))), nil
}

func (c *call) keyInUse() *problem {
	return newProblem(http.StatusConflict, "malformed", "Registration key is already in use").with("Location", c.regURL(c.acct.ID))
}

// wrongAgreement: it is a comparison of strings, with the URL that is served now.
func (c *call) wrongAgreement(got string) *problem {
	return malformed("Provided agreement URL [%s] does not match current agreement URL [%s]", got, c.base+termsPath)
}

// maxContacts is Boulder's.
const maxContacts = 3

func contactProblemV1(contacts []string) error {
	invalid := func(format string, args ...any) *problem {
		return newProblem(http.StatusBadRequest, "invalidEmail", format, args...)
	}
	if len(contacts) > maxContacts {
		return malformed("too many contacts provided: %d > %d", len(contacts), maxContacts)
	}
	for _, contact := range contacts {
		scheme, addr, _ := strings.Cut(contact, ":")
		if scheme != "mailto" {
			return invalid("contact method %q is not supported", scheme)
		}
		parsed, err := mail.ParseAddress(addr)
		if err != nil || parsed.Address != addr {
			return invalid("%q is not a valid e-mail address", addr)
		}
		domain := addr[strings.LastIndexByte(addr, '@')+1:]
		if slices.Contains([]string{"example.com", "example.net", "example.org"}, domain) {
			return invalid("invalid contact domain. Contact emails @%s are forbidden", domain)
		}
	}
	return nil
}

// regUpdate is what a POST to a registration may change.
type regUpdate struct {
	Contact   *[]string `json:"contact"`
	Agreement string    `json:"agreement"`
	Status    string    `json:"status"`
}

// serveReg reads and changes a registration: 202; deactivates it: 200.
func (ca *CA) serveReg(c *call) (*reply, error) {
	if err := ca.verifyV1(c, registered, "reg"); err != nil {
		return nil, err
	}
	if c.id != formatID(c.acct.ID) {
		return nil, unauthorized("Request signing key did not match registration key")
	}
	var req regUpdate
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	if req.Status == statusDeactivated {
		return ca.deactivateReg(c)
	}
	if req.Status != "" && req.Status != c.acct.Status {
		return nil, malformed("Invalid value provided for status field")
	}
	a := c.acct
	if req.Contact != nil || req.Agreement != "" {
		var err error
		if a, err = ca.changeAccount(a.ID, func(a *account) error { return c.updateReg(a, req) }); err != nil {
			return nil, err
		}
	}
	return c.withRegLinks(answer(http.StatusAccepted, viewReg(a))), nil
}

func (c *call) updateReg(a *account, req regUpdate) error {
	if req.Agreement != "" && req.Agreement != a.Terms {
		if req.Agreement != c.base+termsPath {
			return c.wrongAgreement(req.Agreement)
		}
		a.Terms = req.Agreement
	}
	if req.Contact == nil {
		return nil
	}
	if err := contactProblemV1(*req.Contact); err != nil {
		return doing("Unable to update registration", err)
	}
	a.Contact = *req.Contact
	return nil
}

func (ca *CA) deactivateReg(c *call) (*reply, error) {
	a, err := ca.changeAccount(c.acct.ID, func(a *account) error { a.Status = statusDeactivated; return nil })
	if err != nil {
		return nil, err
	}
	ca.logf("v1 account %d: deactivated", a.ID)
	return answer(http.StatusOK, viewReg(a)), nil
}

// agreed is what new-authz and new-cert ask first.
func (c *call) agreed() error {
	if c.acct.Terms == "" {
		return unauthorized("Must agree to subscriber agreement before any further actions")
	}
	return nil
}

// serveKeyChangeV1: the outer payload is the inner JWS object itself, with "resource" beside its members.
func (ca *CA) serveKeyChangeV1(c *call) (*reply, error) {
	if err := ca.verifyV1(c, registered, "key-change"); err != nil {
		return nil, err
	}
	newKey, err := c.innerKey()
	if err != nil {
		return nil, err
	}
	if err := keyProblemV1(newKey); err != nil {
		return nil, err
	}
	a, err := ca.replaceKey(c, newKey)
	var p *problem
	if errors.As(err, &p) && p.Status == http.StatusConflict {
		// Boulder's answer, and not a good one.
		return nil, newProblem(http.StatusInternalServerError, "serverInternal", "Unable to update registration")
	}
	if err != nil {
		return nil, err
	}
	ca.logf("v1 account %d: key changed", a.ID)
	return answer(http.StatusOK, viewReg(a)), nil
}

// innerKey reads the inner JWS, which needs neither nonce nor url, and returns the key that it proves.
func (c *call) innerKey() (*jose.JSONWebKey, error) {
	m, err := jose.ParseSignedJSON(string(c.payload), parsedAlgorithms)
	if err != nil || len(m.Signatures) != 1 {
		return nil, malformed("Parse error reading JWS")
	}
	header := m.Signatures[0].Header
	key := header.JSONWebKey
	if key == nil {
		return nil, malformed("No JWK in JWS header")
	}
	if err := algorithmProblemV1(header.Algorithm, key); err != nil {
		return nil, err
	}
	payload, err := m.Verify(key)
	if err != nil {
		return nil, malformed("JWS verification error")
	}
	var change struct {
		Account string           `json:"account"`
		NewKey  *jose.JSONWebKey `json:"newKey"`
	}
	if json.Unmarshal(payload, &change) != nil || change.NewKey == nil {
		return nil, malformed("JWS payload is not a valid key change")
	}
	if change.Account != c.regURL(c.acct.ID) {
		return nil, malformed("Incorrect account URL provided in payload")
	}
	if thumbprint(change.NewKey) != thumbprint(key) {
		return nil, malformed("New JWK in inner payload doesn't match key used to sign inner JWS")
	}
	return key, nil
}
