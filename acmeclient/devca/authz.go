package devca

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// authzView is the authorization object of RFC 8555 §7.1.4.
type authzView struct {
	Identifier identifier      `json:"identifier"`
	Status     string          `json:"status"`
	Expires    string          `json:"expires"`
	Challenges []challengeView `json:"challenges"`
	Wildcard   bool            `json:"wildcard,omitempty"`
}

// challengeView is the challenge object of RFC 8555 §8.
type challengeView struct {
	Type      string   `json:"type"`
	URL       string   `json:"url"`
	Status    string   `json:"status"`
	Validated string   `json:"validated,omitempty"`
	Error     *problem `json:"error,omitempty"`
	Token     string   `json:"token"`
}

func (c *call) challengeURL(z *authorization, ch *challenge) string {
	return c.base + "/v2/chall/" + formatID(z.id) + "/" + ch.id
}

func (c *call) viewChallenge(z *authorization, ch *challenge) challengeView {
	v := challengeView{Type: ch.kind, URL: c.challengeURL(z, ch), Status: ch.status, Error: ch.err.in(namespaceV2), Token: z.token}
	if ch.status == statusValid {
		v.Validated = ch.validated.UTC().Format(time.RFC3339)
	}
	return v
}

func (c *call) viewAuthz(z *authorization) authzView {
	v := authzView{
		Identifier: z.ident, Status: z.statusAt(time.Now()), Expires: z.expires.UTC().Format(time.RFC3339), Wildcard: z.wildcard,
	}
	for _, ch := range z.shown() {
		v.Challenges = append(v.Challenges, c.viewChallenge(z, ch))
	}
	return v
}

// shown are the challenges a client sees. §7.1.4: of a valid authorization "the challenge that was validated", of an invalid one "the challenge that was
// attempted"; while nothing is decided, all.
func (z *authorization) shown() []*challenge {
	var decided []*challenge
	for _, ch := range z.challenges {
		if ch.status == statusValid || ch.status == statusInvalid {
			decided = append(decided, ch)
		}
	}
	if len(decided) == 0 {
		return z.challenges
	}
	return decided
}

// authzLocked finds the account's authorization.
func (ca *CA) authzLocked(c *call, id string) (*authorization, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	z := ca.state.authzs[n]
	if err != nil || z == nil {
		return nil, notFound("There is no authorization %q", id)
	}
	if z.account != c.acct.ID {
		return nil, unauthorized("The authorization is another account's")
	}
	return z, nil
}

// serveAuthorization reads (§7.5) or deactivates (§7.5.2).
func (ca *CA) serveAuthorization(c *call) (*reply, error) {
	var req struct {
		Status string `json:"status"`
	}
	if len(c.payload) > 0 {
		if err := c.decode(&req); err != nil {
			return nil, err
		}
		if req.Status != statusDeactivated {
			return nil, malformed("An authorization's status can only be changed to %q", statusDeactivated)
		}
	}
	deactivate := req.Status == statusDeactivated
	a, z, err := ca.replyAuthz(c, deactivate)
	if err == nil && deactivate {
		ca.logf("v2 account %d authorization %d: %s deactivated", z.account, z.id, z.name())
	}
	return a, err
}

func (ca *CA) replyAuthz(c *call, deactivate bool) (*reply, *authorization, error) {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	z, err := ca.authzLocked(c, c.id)
	if err != nil {
		return nil, nil, err
	}
	if deactivate {
		if err := z.deactivate(); err != nil {
			return nil, nil, err
		}
	}
	a := answer(http.StatusOK, c.viewAuthz(z))
	if z.underValidation() && ca.cfg.RetryAfter > 0 {
		a.with("Retry-After", retryAfter(ca.cfg.RetryAfter))
	}
	return a, z, nil
}

func (z *authorization) deactivate() error {
	switch z.statusAt(time.Now()) {
	case statusPending, statusValid:
		z.status = statusDeactivated
		return nil
	}
	return malformed("Only pending and valid authorizations can be deactivated")
}

func (z *authorization) underValidation() bool {
	for _, ch := range z.challenges {
		if ch.status == statusProcessing {
			return true
		}
	}
	return false
}

// serveChallenge reads a challenge or, with a JSON object as payload, begins its validation (§7.5.1).
func (ca *CA) serveChallenge(c *call) (*reply, error) {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	authzID, id, _ := strings.Cut(c.id, "/")
	z, err := ca.authzLocked(c, authzID)
	if err != nil {
		return nil, err
	}
	ch := z.challenge(id)
	if ch == nil {
		return nil, notFound("The authorization has no challenge %q", id)
	}
	if len(c.payload) > 0 && ch.status == statusPending {
		if z.statusAt(time.Now()) != statusPending {
			return nil, malformed("The authorization is %s and cannot be validated any more", z.statusAt(time.Now()))
		}
		ca.beginValidationLocked(z, ch, c.acct, dialectV2)
	}
	a := answer(http.StatusOK, c.viewChallenge(z, ch)).with("Link", link(c.authzURL(z.id), "up"))
	if ch.status == statusProcessing && ca.cfg.RetryAfter > 0 {
		a.with("Retry-After", retryAfter(ca.cfg.RetryAfter))
	}
	return a, nil
}

// beginValidationLocked starts one attempt. It goes on when the request has ended; CA.Close waits for it.
func (ca *CA) beginValidationLocked(z *authorization, ch *challenge, acct *account, dialect string) {
	ch.status = statusProcessing
	job := validation{kind: ch.kind, ident: z.ident, token: z.token, keyAuth: z.token + "." + thumbprint(&acct.Key)}
	ch.answered = job.keyAuth
	started := ca.work(func(ctx context.Context) {
		record, p := ca.validate(ctx, job)
		ca.endValidation(z, ch, record, p, dialect)
	})
	if !started {
		ch.status = statusPending // the CA is closing
	}
}

// endValidation records the outcome. A failure is final for the authorization (§7.1.6) and for the orders that need it.
func (ca *CA) endValidation(z *authorization, ch *challenge, record []validationRecord, p *problem, dialect string) {
	ca.stats.validation(p == nil)
	if !ca.decide(z, ch, record, p) {
		return // deactivated meanwhile, or decided by another of its challenges
	}
	if p == nil {
		ca.logf("%s account %d authorization %d: %s valid by %s", dialect, z.account, z.id, z.name(), ch.kind)
	} else {
		ca.logf("%s account %d authorization %d: %s invalid by %s: %v", dialect, z.account, z.id, z.name(), ch.kind, p)
	}
}

// decide reports whether this attempt has decided the authorization.
func (ca *CA) decide(z *authorization, ch *challenge, record []validationRecord, p *problem) bool {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	now := time.Now()
	ch.record, ch.validated = record, now
	if p == nil {
		ch.status = statusValid
	} else {
		ch.status, ch.err = statusInvalid, p
	}
	if z.status != statusPending {
		return false
	}
	if p == nil {
		z.status, z.expires = statusValid, now.Add(validAuthzLifetime).Truncate(time.Second)
		return true
	}
	z.status = statusInvalid
	for _, o := range z.orders {
		if o.err == nil && o.serial == "" {
			o.err = p
		}
	}
	return true
}
