package devca

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// authzViewV1 is v1's authorization object.
type authzViewV1 struct {
	Identifier   identifier        `json:"identifier"`
	Status       string            `json:"status"`
	Expires      string            `json:"expires"`
	Challenges   []challengeViewV1 `json:"challenges"`
	Combinations [][]int           `json:"combinations"`
}

// challengeViewV1 is v1's challenge object; its address is "uri".
type challengeViewV1 struct {
	Type             string             `json:"type"`
	Status           string             `json:"status"`
	Error            *problem           `json:"error,omitempty"`
	URI              string             `json:"uri"`
	Token            string             `json:"token"`
	KeyAuthorization string             `json:"keyAuthorization,omitempty"`
	ValidationRecord []validationRecord `json:"validationRecord,omitempty"`
	Validated        string             `json:"validated,omitempty"`
}

func (c *call) authzURLV1(id int64) string { return c.base + "/acme/authz-v3/" + formatID(id) }

func (c *call) viewChallengeV1(z *authorization, ch *challenge) challengeViewV1 {
	v := challengeViewV1{
		Type: ch.kind, Status: ch.status, Error: ch.err.in(namespaceV1), URI: c.base + "/acme/chall-v3/" + formatID(z.id) + "/" + ch.id, Token: z.token,
		ValidationRecord: ch.record,
	}
	if v.Status == statusProcessing {
		v.Status = statusPending // v1 as served had no such status
	}
	if !ch.validated.IsZero() {
		v.Validated = ch.validated.UTC().Format(time.RFC3339)
	}
	return v
}

// viewAuthzV1 shuffles the challenges at every answer, as Boulder did, against clients that go by index.
func (c *call) viewAuthzV1(z *authorization) authzViewV1 {
	v := authzViewV1{Identifier: z.ident, Status: z.statusAt(time.Now()), Expires: z.expires.UTC().Format(time.RFC3339)}
	shown := slices.Clone(z.shown())
	rand.Shuffle(len(shown), func(i, j int) { shown[i], shown[j] = shown[j], shown[i] })
	for i, ch := range shown {
		v.Challenges = append(v.Challenges, c.viewChallengeV1(z, ch))
		v.Combinations = append(v.Combinations, []int{i})
	}
	return v
}

func (c *call) replyAuthzV1(status int, z *authorization) *reply {
	return answer(status, c.viewAuthzV1(z)).with("Link", link(c.base+"/acme/new-cert", "next"))
}

// serveNewAuthz is always 201, also for an authorization that is handed out again: a valid one with more than a day left, or a pending one.
func (ca *CA) serveNewAuthz(c *call) (*reply, error) {
	if err := ca.verifyV1(c, registered, "new-authz"); err != nil {
		return nil, err
	}
	if err := c.agreed(); err != nil {
		return nil, err
	}
	var req struct {
		Identifier identifier `json:"identifier"`
	}
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	name, err := identifierV1(req.Identifier)
	if err != nil {
		return nil, err
	}
	z, isNew, err := ca.authorizeV1(c, name)
	if err != nil {
		return nil, doing("Error creating new authz", err)
	}
	if isNew {
		ca.logf("v1 account %d authorization %d: new for %s", c.acct.ID, z.id, name.Value)
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	return c.replyAuthzV1(http.StatusCreated, z).with("Location", c.authzURLV1(z.id)), nil
}

func identifierV1(n identifier) (identifier, error) {
	if n.Type == "" || n.Value == "" {
		return n, malformed("Invalid new-authorization request: missing fields")
	}
	if n.Type != identDNS {
		return n, malformed("Invalid new-authorization request: wrong identifier type")
	}
	n.Value = strings.ToLower(n.Value)
	fault := dnsNameFault(n.Value)
	if _, wild := cutWildcard(n.Value); wild {
		fault = "Wildcard domain names are not supported"
	}
	if fault != "" {
		return n, doing("Error creating new authz", malformed("%s", fault))
	}
	return n, nil
}

// authorizeV1 finds or makes the authorization and reports whether it is new.
func (ca *CA) authorizeV1(c *call, name identifier) (*authorization, bool, error) {
	s := ca.state
	find := func() *authorization {
		if z := s.reusableLocked(c.acct.ID, name, statusValid, time.Now().Add(24*time.Hour)); z != nil {
			return z
		}
		return s.reusableLocked(c.acct.ID, name, statusPending, time.Now())
	}
	s.mu.Lock()
	old := find()
	issued := s.issuedToLocked(c.acct.ID, name)
	s.mu.Unlock()
	if !issued && ca.switches.Load().NoNewNames {
		return nil, false, unauthorized("Validations for new domains are disabled in the V1 API (https://community.letsencrypt.org/t/end-of-life-plan-for-acmev1/88430)")
	}
	if old != nil {
		return old, false, nil
	}
	if err := ca.allowed("new-authz", []identifier{name}); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if z := find(); z != nil {
		return z, false, nil // made while the limits were asked about
	}
	return s.newAuthorizationLocked(c.acct.ID, name, ca.challengeKinds(), time.Now()), true, nil
}

// issuedToLocked reports whether the account ever got a certificate for the name.
func (s *state) issuedToLocked(acct int64, name identifier) bool {
	for _, cert := range s.certs {
		if cert.Account == acct && slices.Contains(cert.Names, name) {
			return true
		}
	}
	return false
}

// authzV1Locked finds an authorization by the path, whoever asks: v1 reads without a signature.
func (ca *CA) authzV1Locked(id string) (*authorization, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil, malformed("Invalid authorization ID")
	}
	z := ca.state.authzs[n]
	if z == nil {
		return nil, notFound("No such authorization")
	}
	if !time.Now().Before(z.expires) {
		return nil, notFound("Expired authorization")
	}
	return z, nil
}

// challengeV1Locked finds a challenge by the path.
func (ca *CA) challengeV1Locked(path string) (*authorization, *challenge, error) {
	authzID, id, _ := strings.Cut(path, "/")
	n, err := strconv.ParseInt(authzID, 10, 64)
	if err != nil {
		return nil, nil, malformed("Invalid authorization ID")
	}
	if ca.state.authzs[n] == nil {
		return nil, nil, notFound("No such challenge")
	}
	z, err := ca.authzV1Locked(authzID)
	if err != nil {
		return nil, nil, err
	}
	ch := z.challenge(id)
	if ch == nil {
		return nil, nil, notFound("No such challenge")
	}
	return z, ch, nil
}

// serveAuthzV1 reads (GET) or deactivates (POST).
func (ca *CA) serveAuthzV1(c *call) (*reply, error) {
	if c.r.Method == http.MethodPost {
		return ca.deactivateAuthzV1(c)
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	z, err := ca.authzV1Locked(c.id)
	if err != nil {
		return nil, err
	}
	return c.replyAuthzV1(http.StatusOK, z), nil
}

func (ca *CA) deactivateAuthzV1(c *call) (*reply, error) {
	// The object is looked up before the signature is checked, so that a wrong id says nothing about who asked.
	ca.state.mu.Lock()
	z, err := ca.authzV1Locked(c.id)
	ca.state.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := ca.verifyV1(c, registered, "authz"); err != nil {
		return nil, err
	}
	if c.acct.ID != z.account {
		return nil, unauthorized("Registration ID doesn't match ID for authorization")
	}
	var req struct {
		Status string `json:"status"`
	}
	if err := c.decodeV1(&req); err != nil {
		return nil, err
	}
	if req.Status != statusDeactivated {
		return nil, malformed("Invalid status value")
	}
	ca.logf("v1 account %d authorization %d: %s deactivated", z.account, z.id, z.ident.Value)
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	z.status = statusDeactivated // again and again, as Boulder let one
	return c.replyAuthzV1(http.StatusOK, z), nil
}

// serveChallengeV1 reads (GET) or begins a validation (POST): 202 in every state.
func (ca *CA) serveChallengeV1(c *call) (*reply, error) {
	ca.state.mu.Lock()
	z, ch, err := ca.challengeV1Locked(c.id)
	ca.state.mu.Unlock()
	if err != nil {
		return nil, err
	}
	isPost := c.r.Method == http.MethodPost
	if isPost {
		if err := ca.mayAnswerV1(c, z); err != nil {
			return nil, err
		}
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	view := c.viewChallengeV1(z, ch)
	if isPost && ch.status != statusValid {
		if z.statusAt(time.Now()) != statusPending {
			return nil, doing("Unable to perform validation for challenge", malformed("authorization must be pending"))
		}
		if ch.status == statusPending {
			ca.beginValidationLocked(z, ch, c.acct, dialectV1)
		}
		// The key authorization is computed here; the one that was sent is not looked at.
		view.KeyAuthorization = ch.answered
	}
	return answer(http.StatusAccepted, view).with("Location", view.URI).with("Link", link(c.authzURLV1(z.id), "up")), nil
}

func (ca *CA) mayAnswerV1(c *call, z *authorization) error {
	if err := ca.verifyV1(c, registered, "challenge"); err != nil {
		return err
	}
	if c.acct.Terms == "" {
		return unauthorized("Registration didn't agree to subscriber agreement before any further actions")
	}
	if c.acct.ID != z.account {
		return unauthorized("User registration ID doesn't match registration ID in authorization")
	}
	return nil
}
