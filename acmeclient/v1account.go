package acmeclient

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// wireReg is a registration as it is sent; what is empty is left out.
type wireReg struct {
	Resource  string    `json:"resource"`
	Contact   *[]string `json:"contact,omitempty"`
	Agreement string    `json:"agreement,omitempty"`
	Status    string    `json:"status,omitempty"`
}

// register makes the registration and agrees to the terms. A key that has one already is answered by 409 with its Location.
func (d *v1) register(ctx context.Context, key crypto.Signer, contact []string) (regURL, terms string, err error) {
	const op = "register the account"
	if err := d.refuseBinding(); err != nil {
		return "", "", err
	}
	if d.dir.terms != "" && !d.agreeTerms {
		return "", "", d.disagree(op, d.dir.terms)
	}
	request := wireReg{Resource: "new-reg"}
	if len(contact) > 0 {
		request.Contact = &contact
	}
	var ex *exchange
	var body []byte
	err = d.wire.retryQuickly(ctx, func() (err error) {
		ex, body, err = d.postAs(ctx, key, op, endpointNewReg, d.dir.endpoints["new-reg"], request)
		return err
	})
	known := ex != nil && ex.status == http.StatusConflict
	if err != nil && !known {
		return "", "", err
	}
	regURL, urlErr := ex.location()
	if known {
		if urlErr != nil {
			return "", "", err
		}
		if ex, body, err = d.registration(ctx, op, key, regURL); err != nil {
			return "", "", deactivated(err)
		}
	}
	terms, err = d.agree(ctx, key, regURL, ex, body)
	return regURL, terms, err
}

// registration reads a registration, which is a signed request, unlike everything else that v1 reads.
func (d *v1) registration(ctx context.Context, op string, key crypto.Signer, regURL string) (ex *exchange, body []byte, err error) {
	err = d.wire.retryQuickly(ctx, func() (err error) {
		ex, body, err = d.postAs(ctx, key, op, endpointAccount, regURL, wireReg{Resource: "reg"})
		return err
	})
	return ex, body, err
}

// deactivated is what it means when a registration that exists does not let its key in.
func deactivated(err error) error {
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusForbidden && p.scope == ScopeAccount {
		p.Advice = "the account was deactivated at the CA; remove the stored one to make another"
	}
	return err
}

// agree agrees to the terms that the answer names unless the registration has agreed to some: later changes of the terms do not lock it out. It
// returns what was agreed to.
func (d *v1) agree(ctx context.Context, key crypto.Signer, regURL string, ex *exchange, body []byte) (string, error) {
	const op = "agree to the CA's terms"
	var reg struct {
		Agreement string `json:"agreement"`
	}
	_ = json.Unmarshal(body, &reg) // what cannot be read says nothing of an agreement
	terms := d.dir.terms
	if named := links(ex.header, "terms-of-service", ex.url); len(named) > 0 {
		terms = named[0]
	}
	switch {
	case reg.Agreement != "" || terms == "":
		return reg.Agreement, nil
	case !d.agreeTerms:
		return "", d.disagree(op, terms)
	case regURL == "":
		return "", d.unreadable(op, ex, "it has no account URL in Location, where the terms could be agreed to")
	}
	return terms, d.change(ctx, op, key, regURL, wireReg{Resource: "reg", Agreement: terms})
}

func (d *v1) disagree(op, terms string) error {
	return &Problem{CA: d.wire.ca, Op: op, Detail: "the CA's terms of service are not agreed to", scope: ScopeCA,
		Advice: fmt.Sprintf("read %s and set `agree_terms = true`", clean(terms))}
}

// change changes a registration.
func (d *v1) change(ctx context.Context, op string, key crypto.Signer, regURL string, to wireReg) error {
	return d.wire.retryQuickly(ctx, func() error {
		_, _, err := d.postAs(ctx, key, op, endpointAccount, regURL, to)
		return err
	})
}

// find tells whether the account's registration is the key's. v1 cannot be asked for the registration of a key without making one.
func (d *v1) find(ctx context.Context, key crypto.Signer) (string, error) {
	const op = "find the account"
	regURL, err := d.own(op)
	if err != nil {
		return "", err
	}
	_, _, err = d.registration(ctx, op, key, regURL)
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusForbidden && kind(p.Type) == "unauthorized" {
		p.Type = problemNamespace + "accountDoesNotExist"
	}
	return regURL, err
}

// own returns the URL of the account's registration.
func (d *v1) own(op string) (string, error) {
	if d.account != nil && d.account.at(ProtocolV1) != "" {
		return d.account.at(ProtocolV1), nil
	}
	return "", &Problem{CA: d.wire.ca, Op: op, Detail: "the CA gave no account URL", Advice: "over ACME v1 this needs one; use a CA that speaks v2", scope: ScopeCA}
}

// update tells the CA the contact addresses; none removes those that it has.
func (d *v1) update(ctx context.Context, contact []string) error {
	const op = "update the account's contact"
	regURL, err := d.own(op)
	if err != nil {
		return err
	}
	if contact == nil {
		contact = []string{}
	}
	return d.change(ctx, op, d.account.key, regURL, wireReg{Resource: "reg", Contact: &contact})
}

// deactivateAccount ends the account for good: not even its key can register again.
func (d *v1) deactivateAccount(ctx context.Context) error {
	const op = "deactivate the account"
	regURL, err := d.own(op)
	if err != nil {
		return err
	}
	return d.change(ctx, op, d.account.key, regURL, wireReg{Resource: "reg", Status: statusDeactivated})
}

// changeKey rolls the account over to the key next. The outer payload is the inner signature itself, with its resource beside its members. It is not
// repeated: after an error, find tells which key counts.
func (d *v1) changeKey(ctx context.Context, next crypto.Signer) error {
	const op = "change the account's key"
	target := d.dir.endpoints["key-change"]
	if target == "" {
		return d.lacks(op, "key-change", "make a new account instead: remove the stored one")
	}
	regURL, err := d.own(op)
	if err != nil {
		return err
	}
	change, err := json.Marshal(struct {
		Account string          `json:"account"`
		NewKey  jose.JSONWebKey `json:"newKey"`
	}{regURL, jose.JSONWebKey{Key: next.Public()}})
	if err != nil {
		return fmt.Errorf("encode the key change: %w", err)
	}
	payload, err := signInnerV1(next, change)
	if err != nil {
		return err
	}
	payload["resource"] = "key-change"
	_, _, err = d.post(ctx, op, endpointKeyChangeV1, target, payload)
	return err
}

// lacks is the Problem of an endpoint that the directory does not have.
func (d *v1) lacks(op, endpoint, advice string) error {
	return &Problem{CA: d.wire.ca, Op: op, Detail: fmt.Sprintf("the CA's directory has no %s", endpoint), Advice: advice, scope: ScopeCA}
}
