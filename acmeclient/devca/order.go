package devca

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// orderView is the order object of RFC 8555 §7.1.3.
type orderView struct {
	Status         string       `json:"status"`
	Expires        string       `json:"expires"`
	Identifiers    []identifier `json:"identifiers"`
	Profile        string       `json:"profile,omitempty"`
	Replaces       string       `json:"replaces,omitempty"`
	Error          *problem     `json:"error,omitempty"`
	Authorizations []string     `json:"authorizations"`
	Finalize       string       `json:"finalize"`
	Certificate    string       `json:"certificate,omitempty"`
}

func (c *call) orderURL(id int64) string { return c.base + "/v2/order/" + formatID(id) }
func (c *call) authzURL(id int64) string { return c.base + "/v2/authz/" + formatID(id) }

func (ca *CA) viewOrderLocked(c *call, o *order) orderView {
	v := orderView{
		Status: o.statusAt(time.Now()), Expires: o.expires.UTC().Format(time.RFC3339), Identifiers: o.names,
		Profile: o.profile, Replaces: o.replaces, Error: o.err.in(namespaceV2), Finalize: c.base + "/v2/finalize/" + formatID(o.id),
	}
	for _, z := range o.authzs {
		v.Authorizations = append(v.Authorizations, c.authzURL(z.id))
	}
	if o.serial != "" {
		v.Certificate = c.base + "/v2/cert/" + o.serial
	}
	return v
}

// replyOrderLocked adds Location, and Retry-After while the certificate is being made (§7.4).
func (ca *CA) replyOrderLocked(c *call, status int, o *order) *reply {
	a := answer(status, ca.viewOrderLocked(c, o)).with("Location", c.orderURL(o.id))
	if o.processing && ca.cfg.RetryAfter > 0 {
		a.with("Retry-After", retryAfter(ca.cfg.RetryAfter))
	}
	return a
}

// serveNewOrder: RFC 8555 §7.4, with profile and replaces (RFC 9773 §5).
func (ca *CA) serveNewOrder(c *call) (*reply, error) {
	var req struct {
		Identifiers []identifier `json:"identifiers"`
		NotBefore   string       `json:"notBefore"`
		NotAfter    string       `json:"notAfter"`
		Profile     string       `json:"profile"`
		Replaces    string       `json:"replaces"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if req.NotBefore != "" || req.NotAfter != "" {
		return nil, malformed("notBefore and notAfter are not supported")
	}
	if _, ok := ca.cfg.Profiles[req.Profile]; !ok && req.Profile != "" {
		return nil, newProblem(http.StatusBadRequest, "invalidProfile", "There is no profile %q", req.Profile)
	}
	kinds := ca.challengeKinds()
	names, err := canonicalNames(req.Identifiers, slices.Contains(kinds, challengeDNS))
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		return nil, errors.New("no way to validate: neither HTTPAddr, TLSAddr nor DNSAddr is set")
	}
	if err := ca.allowed("newOrder", names); err != nil {
		return nil, err
	}
	o, a, err := ca.makeOrder(c, &order{names: names, profile: req.Profile, replaces: req.Replaces}, kinds)
	if err != nil {
		return nil, err
	}
	ca.stats.order(names)
	ca.logf("v2 account %d order %d: new order for %s", c.acct.ID, o.id, describe(names))
	return a, nil
}

// makeOrder registers the order and renders it. writeMu makes "not yet replaced" and "now replaced by this order" one step.
func (ca *CA) makeOrder(c *call, o *order, kinds []string) (*order, *reply, error) {
	s := ca.state
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	var old *certificate
	if o.replaces != "" {
		var err error
		if old, err = ca.predecessor(c, o); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	o.id, o.account, o.expires = s.nextIDLocked(), c.acct.ID, now.Add(orderLifetime).Truncate(time.Second)
	for _, n := range o.names {
		var z *authorization
		if ca.cfg.ReuseAuthorizations {
			z = s.reusableLocked(o.account, n, statusValid, now.Add(24*time.Hour))
		}
		if z == nil {
			z = s.newAuthorizationLocked(o.account, n, kinds, now)
		}
		o.authzs = append(o.authzs, z)
		z.orders = append(z.orders, o)
	}
	s.orders[o.id] = o
	if old != nil {
		// In memory only until the order is issued: an order that a restart loses has replaced nothing.
		marked := *old
		marked.ReplacedBy = o.id
		s.certs[old.Serial] = &marked
	}
	return o, ca.replyOrderLocked(c, http.StatusCreated, o), nil
}

// order finds the account's order by the id in the path.
func (ca *CA) orderLocked(c *call) (*order, error) {
	id, err := strconv.ParseInt(c.id, 10, 64)
	o := ca.state.orders[id]
	if err != nil || o == nil {
		return nil, notFound("There is no order %q", c.id)
	}
	if o.account != c.acct.ID {
		return nil, unauthorized("The order is another account's")
	}
	return o, nil
}

func (ca *CA) serveOrder(c *call) (*reply, error) {
	if err := c.postAsGet(); err != nil {
		return nil, err
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	o, err := ca.orderLocked(c)
	if err != nil {
		return nil, err
	}
	return ca.replyOrderLocked(c, http.StatusOK, o), nil
}

// allowed asks the configuration about names and limits.
func (ca *CA) allowed(endpoint string, names []identifier) error {
	var values []string
	for _, n := range names {
		values = append(values, n.Value)
	}
	if ca.cfg.Policy != nil {
		for _, v := range values {
			if err := ca.cfg.Policy(v); err != nil {
				return rejected("%v", err)
			}
		}
	}
	if ca.cfg.RateLimit == nil {
		return nil
	}
	l := ca.cfg.RateLimit(endpoint, values)
	if l == nil {
		return nil
	}
	p := newProblem(http.StatusTooManyRequests, "rateLimited", "%s", l.Detail)
	if l.RetryAfter > 0 {
		p.with("Retry-After", retryAfter(l.RetryAfter))
	}
	return p
}
