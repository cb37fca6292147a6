package devca

import (
	"net"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// accountView is the account object of RFC 8555 §7.1.2.
type accountView struct {
	Status  string   `json:"status"`
	Contact []string `json:"contact,omitempty"`
	Terms   bool     `json:"termsOfServiceAgreed,omitempty"`
	Orders  string   `json:"orders"`

	// As Boulder shows them too.
	Key       jose.JSONWebKey `json:"key"`
	InitialIP string          `json:"initialIp"`
	CreatedAt time.Time       `json:"createdAt"`
}

func (c *call) viewAccount(a *account) accountView {
	return accountView{
		Status: a.Status, Contact: a.Contact, Terms: a.Terms != "",
		Key: a.Key, InitialIP: a.InitialIP, CreatedAt: a.CreatedAt,
		Orders: c.base + "/v2/orders/" + formatID(a.ID),
	}
}

// serveNewAccount: RFC 8555 §7.3. A known key gets its account back with 200.
func (ca *CA) serveNewAccount(c *call) (*reply, error) {
	var req struct {
		Contact            []string `json:"contact"`
		TermsAgreed        bool     `json:"termsOfServiceAgreed"`
		OnlyReturnExisting bool     `json:"onlyReturnExisting"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if old := ca.state.accountByKey(c.key); old != nil {
		return c.replyKnownAccount(old)
	}
	if req.OnlyReturnExisting {
		// RFC 8555 §7.3.1: "status code 400 (Bad Request) and type […] accountDoesNotExist".
		return nil, newProblem(http.StatusBadRequest, "accountDoesNotExist", "There is no account with this key")
	}
	if !req.TermsAgreed {
		return nil, newProblem(http.StatusForbidden, "userActionRequired", "The terms of service must be agreed to: %s", c.base+termsPath).
			with("Link", link(c.base+termsPath, "terms-of-service"))
	}
	if p := contactProblem(req.Contact); p != nil {
		return nil, p
	}
	a, isNew, err := ca.register(c, req.Contact, c.base+termsPath)
	if err != nil {
		return nil, err
	}
	if !isNew {
		return c.replyKnownAccount(a)
	}
	ca.logf("v2 account %d: registered, %s key", a.ID, algorithmFor(&a.Key))
	return answer(http.StatusCreated, c.viewAccount(a)).with("Location", c.accountURL(a.ID)).
		with("Link", link(c.base+termsPath, "terms-of-service")), nil
}

func (c *call) replyKnownAccount(a *account) (*reply, error) {
	if a.Status != statusValid {
		return nil, newProblem(http.StatusUnauthorized, "unauthorized", "The account with this key is %s", a.Status)
	}
	return answer(http.StatusOK, c.viewAccount(a)).with("Location", c.accountURL(a.ID)), nil
}

// register stores a new account for the call's key and reports whether it is new.
func (ca *CA) register(c *call, contact []string, terms string) (*account, bool, error) {
	ip, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		ip = "127.0.0.1" // a Handler called without a connection, as in httptest
	}
	now := time.Now().UTC()
	a, isNew, err := ca.addAccount(&account{
		// The key alone: whatever else was in the jwk (kid, use, x5c) is the client's affair.
		Key: jose.JSONWebKey{Key: c.key.Key}, Status: statusValid, Contact: contact, Terms: terms,
		InitialIP: ip, CreatedAt: now.Truncate(time.Second),
	})
	if err != nil || !isNew {
		return a, false, err
	}
	ca.stats.account()
	// As at Boulder, whose first answer has the fraction of a second that its database does not keep.
	first := *a
	first.CreatedAt = now
	return &first, true, nil
}

// contactProblem: RFC 8555 §7.3: mailto only, one address each.
func contactProblem(contacts []string) *problem {
	for _, c := range contacts {
		addr, ok := strings.CutPrefix(c, "mailto:")
		if !ok {
			return newProblem(http.StatusBadRequest, "unsupportedContact", "Contact %q is not a mailto URL", c)
		}
		if a, err := mail.ParseAddress(addr); err != nil || a.Address != addr || strings.ContainsAny(addr, "?,") {
			return newProblem(http.StatusBadRequest, "invalidContact", "Contact %q is not one mail address", c)
		}
	}
	return nil
}

// serveAccount reads, updates (§7.3.2) or deactivates (§7.3.6) the account that signed.
func (ca *CA) serveAccount(c *call) (*reply, error) {
	if c.id != formatID(c.acct.ID) {
		return nil, unauthorized("The request is signed by another account")
	}
	a := c.acct
	if len(c.payload) > 0 {
		var req struct {
			Contact *[]string `json:"contact"`
			Status  string    `json:"status"`
		}
		if err := c.decode(&req); err != nil {
			return nil, err
		}
		if req.Status != "" && req.Status != statusValid && req.Status != statusDeactivated {
			return nil, malformed("An account's status can only be changed to %q", statusDeactivated)
		}
		var err error
		a, err = ca.changeAccount(a.ID, func(a *account) error {
			if req.Status == statusDeactivated {
				a.Status = statusDeactivated
				return nil
			}
			if req.Contact == nil {
				return nil
			}
			if p := contactProblem(*req.Contact); p != nil {
				return p
			}
			a.Contact = *req.Contact
			return nil
		})
		if err != nil {
			return nil, err
		}
		if a.Status == statusDeactivated {
			ca.logf("v2 account %d: deactivated", a.ID)
		}
	}
	return answer(http.StatusOK, c.viewAccount(a)), nil
}

// serveOrders: RFC 8555 §7.1.2.1; the whole list in one answer.
func (ca *CA) serveOrders(c *call) (*reply, error) {
	if c.id != formatID(c.acct.ID) {
		return nil, unauthorized("The request is signed by another account")
	}
	if err := c.postAsGet(); err != nil {
		return nil, err
	}
	list := struct {
		Orders []string `json:"orders"`
	}{[]string{}}
	now := time.Now()
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	for _, o := range ca.state.orders {
		// "The server […] SHOULD NOT include orders that are invalid."
		if o.account == c.acct.ID && o.statusAt(now) != statusInvalid {
			list.Orders = append(list.Orders, c.orderURL(o.id))
		}
	}
	return answer(http.StatusOK, list), nil
}
