package acmeclient

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/acme"
)

// wireAccount is what newAccount and the account's URL are sent (RFC 8555 §7.3).
type wireAccount struct {
	AgreeTerms   bool      `json:"termsOfServiceAgreed,omitempty"`
	Contact      *[]string `json:"contact,omitempty"` // nil says nothing of it, an empty list says none
	OnlyExisting bool      `json:"onlyReturnExisting,omitempty"`

	Binding json.RawMessage `json:"externalAccountBinding,omitempty"` // §7.3.4
}

// register makes the account (RFC 8555 §7.3). A key that has one already gets that one.
func (d *v2) register(ctx context.Context, key crypto.Signer, contact []string) (accountURL, terms string, err error) {
	const op = "register the account"
	if d.dir.terms != "" && !d.agreeTerms {
		return "", "", &Problem{CA: d.wire.ca, Op: op, Detail: "the CA's terms of service are not agreed to", scope: ScopeCA,
			Advice: fmt.Sprintf("read %s and set `agree_terms = true`", d.dir.terms)}
	}
	account := wireAccount{AgreeTerms: d.agreeTerms}
	switch {
	case d.eab != (EAB{}):
		if account.Binding, err = d.eab.bind(d.dir.endpoints["newAccount"], key); err != nil {
			return "", "", err
		}
	case d.dir.binding:
		return "", "", &Problem{CA: d.wire.ca, Op: op, Type: problemNamespace + "externalAccountRequired", scope: ScopeCA, Advice: adviceBinding}
	}
	if len(contact) > 0 {
		account.Contact = &contact
	}
	accountURL, err = d.newAccount(ctx, op, key, account)
	return accountURL, d.dir.terms, d.bindingRefused(err)
}

// adviceBinding is what to do about a CA that wants to know its customers.
const adviceBinding = "the CA wants an external account binding: get a key identifier and a key from it, and set `eab`"

// bindingRefused says so where a refusal of the account can only be one of its binding.
func (d *v2) bindingRefused(err error) error {
	var p *Problem
	if d.eab == (EAB{}) || !errors.As(err, &p) || !(isKind(err, "unauthorized") || isKind(err, "malformed") || isKind(err, "externalAccountRequired")) {
		return err
	}
	p.scope, p.retryAt = ScopeCA, time.Now().Add(actionPause)
	p.Advice = "the CA refuses the external account binding: it is wrong, expired or used before, and some CAs accept one only once; get a new one and set `eab`"
	return err
}

// find asks for the key's account without making one (RFC 8555 §7.3.1).
func (d *v2) find(ctx context.Context, key crypto.Signer) (accountURL string, err error) {
	return d.newAccount(ctx, "find the account", key, wireAccount{OnlyExisting: true})
}

func (d *v2) newAccount(ctx context.Context, op string, key crypto.Signer, account wireAccount) (accountURL string, err error) {
	payload, err := json.Marshal(account)
	if err != nil {
		return "", fmt.Errorf("encode the account: %w", err)
	}
	err = d.wire.retryQuickly(ctx, func() error {
		ex, err := d.postAs(ctx, identity{key: key}, op, endpointNewAccount, d.dir.endpoints["newAccount"], payload, nil)
		if err != nil {
			return err
		}
		if accountURL, err = ex.location(); err != nil {
			return d.explain(op, ex, errors.New("it has no account URL in Location"))
		}
		return nil
	})
	return accountURL, err
}

// update tells the CA the contact addresses (RFC 8555 §7.3.2); none removes those that it has.
func (d *v2) update(ctx context.Context, contact []string) error {
	if contact == nil {
		contact = []string{}
	}
	payload, err := json.Marshal(wireAccount{Contact: &contact})
	if err != nil {
		return fmt.Errorf("encode the account: %w", err)
	}
	return d.wire.retryQuickly(ctx, func() error {
		_, err := d.post(ctx, "update the account's contact", endpointAccount, d.account.URL, payload, nil)
		return err
	})
}

// deactivateAccount: RFC 8555 §7.3.6.
func (d *v2) deactivateAccount(ctx context.Context) error {
	return d.deactivate(ctx, "deactivate the account", endpointAccount, d.account.URL)
}

// deactivateAuthorization: RFC 8555 §7.5.2.
func (d *v2) deactivateAuthorization(ctx context.Context, url string) error {
	return d.deactivate(ctx, "deactivate the authorization", endpointAuthz, url)
}

func (d *v2) deactivate(ctx context.Context, op, endpoint, url string) error {
	return d.wire.retryQuickly(ctx, func() error {
		_, err := d.post(ctx, op, endpoint, url, []byte(`{"status":"deactivated"}`), nil)
		return err
	})
}

// changeKey rolls the account over to the key next (RFC 8555 §7.3.5). It is not repeated: after an error, find tells which key counts.
func (d *v2) changeKey(ctx context.Context, next crypto.Signer) error {
	const op = "change the account's key"
	if d.dir.endpoints["keyChange"] == "" {
		return d.lacks(op, "keyChange", "make a new account instead: remove the stored one")
	}
	ex := &exchange{endpoint: endpointKeyChange, directory: d.dir}
	if err := d.client().AccountKeyRollover(withExchange(ctx, ex), next); err != nil {
		return d.explain(op, ex, err)
	}
	return nil
}

// revoke: RFC 8555 §7.6.
func (d *v2) revoke(ctx context.Context, cert []byte, key crypto.Signer, reason int) error {
	const op = "revoke the certificate"
	if d.dir.endpoints["revokeCert"] == "" {
		return d.lacks(op, "revokeCert", "ask the CA how else it revokes")
	}
	_, err := d.call(ctx, op, endpointRevoke, func(ctx context.Context, c *acme.Client) error {
		return c.RevokeCert(ctx, key, cert, acme.CRLReasonCode(reason)) // alreadyRevoked is nil
	})
	return err
}

// lacks is the Problem of an endpoint that the directory does not have.
func (d *v2) lacks(op, endpoint, advice string) error {
	return &Problem{CA: d.wire.ca, Op: op, Detail: fmt.Sprintf("the CA's directory has no %s", endpoint), Advice: advice, scope: ScopeCA}
}
