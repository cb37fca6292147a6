package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

// wireAuthzV1 is an authorization in JSON.
type wireAuthzV1 struct {
	Identifier   identifier        `json:"identifier"`
	Status       string            `json:"status"`
	Expires      string            `json:"expires"`
	Challenges   []wireChallengeV1 `json:"challenges"`
	Combinations [][]int           `json:"combinations"`
}

type wireChallengeV1 struct {
	Type   string          `json:"type"`
	Status string          `json:"status"`
	URI    string          `json:"uri"` // v2 calls it url
	Token  string          `json:"token"`
	Error  json.RawMessage `json:"error"`
}

// parseAuthzV1 makes an authorization of an answer.
func parseAuthzV1(url string, ex *exchange, body []byte) (*authorization, time.Time, error) {
	var w wireAuthzV1
	if json.Unmarshal(body, &w) != nil {
		return nil, time.Time{}, errors.New("it is not the JSON of an authorization")
	}
	az := &authorization{url: url, status: w.Status, identifier: w.Identifier}
	if az.status == "" { // draft-02: "if this field is missing, then the default value is pending"
		az.status = statusPending
	}
	az.retryAfter, _ = retryAfter(ex.header, time.Now())
	for i, ch := range w.Challenges {
		if !w.suffices(i) {
			continue
		}
		az.challenges = append(az.challenges, challenge{
			typ: ch.Type, url: absolute(ex.url, ch.URI), token: ch.Token, status: ch.Status, problem: documentOf(ch.Error),
		})
	}
	expires, _ := time.Parse(time.RFC3339, w.Expires) // unreadable counts as absent
	return az, expires, nil
}

// suffices reports whether the challenge alone makes the authorization valid. Without combinations each does.
func (w *wireAuthzV1) suffices(challenge int) bool {
	if len(w.Combinations) == 0 {
		return true
	}
	return slices.ContainsFunc(w.Combinations, func(set []int) bool { return len(set) == 1 && set[0] == challenge })
}

// begin asks for one authorization per name. The CA may hand out one that it has: a pending one, or a valid one, which needs nothing more.
func (d *v1) begin(ctx context.Context, ids []identifier, _ orderOptions) (*order, error) {
	o := &order{status: statusReady}
	for _, id := range ids {
		az, expires, err := d.newAuthz(ctx, id)
		if err != nil {
			return nil, err
		}
		if az.status != statusValid {
			o.status = statusPending
		}
		if o.expires.IsZero() || !expires.IsZero() && expires.Before(o.expires) {
			o.expires = expires
		}
		o.authorizations = append(o.authorizations, az.url)
		o.identifiers = append(o.identifiers, az.identifier)
	}
	return o, nil
}

// newAuthz asks for an authorization. A refusal may be for the account's sake, which is put right first.
func (d *v1) newAuthz(ctx context.Context, id identifier) (*authorization, time.Time, error) {
	az, expires, err := d.newAuthzOnce(ctx, id)
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusForbidden || kind(p.Type) != "unauthorized" {
		return az, expires, err
	}
	agreed, repairErr := d.repair(ctx)
	if repairErr != nil {
		return nil, expires, repairErr
	}
	if agreed {
		if az, expires, err = d.newAuthzOnce(ctx, id); !errors.As(err, &p) || p.Status != http.StatusForbidden {
			return az, expires, err
		}
	}
	// The account is in order, so this is about the name: the last step before the end of v1 at Let's Encrypt.
	p.scope, p.elsewhere, p.Identifier = ScopeName, true, id.Value
	p.Advice = "the CA validates no new names over ACME v1; give its v2 directory in `directory`, or use another CA"
	d.moved()
	return nil, expires, err
}

func (d *v1) newAuthzOnce(ctx context.Context, id identifier) (az *authorization, expires time.Time, err error) {
	const op = "place the order"
	err = d.wire.retryQuickly(ctx, func() error { // what was made and not heard of is handed out again
		ex, body, err := d.post(ctx, op, endpointNewAuthz, d.dir.endpoints["new-authz"], struct {
			Resource   string     `json:"resource"`
			Identifier identifier `json:"identifier"`
		}{"new-authz", id})
		if err != nil {
			return err
		}
		url, err := ex.location()
		if err != nil {
			return d.unreadable(op, ex, "it has no authorization URL in Location")
		}
		if az, expires, err = parseAuthzV1(url, ex, body); err != nil {
			return d.unreadable(op, ex, err.Error())
		}
		if az.identifier.Type != id.Type || !strings.EqualFold(az.identifier.Value, id.Value) {
			return d.unreadable(op, ex, fmt.Sprintf("it is for %q, which was not asked for", clean(az.identifier.Value)))
		}
		return nil
	})
	return az, expires, err
}

// repair sees why the CA does not let the account ask for authorizations, and agrees to the terms if it is that. A registration that is gone is an
// accountDoesNotExist, as over v2.
func (d *v1) repair(ctx context.Context) (agreed bool, err error) {
	regURL := d.account.at(ProtocolV1)
	if regURL == "" {
		return false, nil
	}
	ex, body, err := d.registration(ctx, "place the order", d.account.key, regURL)
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusForbidden && kind(p.Type) == "unauthorized" {
		p.Type, p.Advice = problemNamespace+"accountDoesNotExist", "the CA no longer knows the account; it is registered again with the same key, once an hour at most"
	}
	if err != nil {
		return false, err
	}
	var reg struct {
		Agreement string `json:"agreement"`
	}
	if json.Unmarshal(body, &reg) != nil || reg.Agreement != "" {
		return false, nil
	}
	terms, err := d.agree(ctx, d.account.key, regURL, ex, body)
	return terms != "", err
}

func (d *v1) authorization(ctx context.Context, url string) (*authorization, error) {
	az, _, err := d.readAuthz(ctx, url)
	return az, err
}

func (d *v1) readAuthz(ctx context.Context, url string) (*authorization, time.Time, error) {
	const op = "read the authorization"
	ex, body, err := d.get(ctx, op, endpointAuthz, url)
	if err != nil {
		return nil, time.Time{}, err
	}
	az, expires, err := parseAuthzV1(url, ex, body)
	if err != nil {
		err = d.unreadable(op, ex, err.Error())
	}
	return az, expires, err
}

// accept answers a challenge. Some servers compute the key authorization themselves, others insist on being told.
func (d *v1) accept(ctx context.Context, ch *challenge) (status string, err error) {
	thumbprint, err := acme.JWKThumbprint(d.account.key.Public())
	if err != nil {
		return "", fmt.Errorf("make the key authorization: %w", err)
	}
	err = d.wire.retryQuickly(ctx, func() error {
		_, body, err := d.post(ctx, "answer the challenge", endpointChallenge, ch.url, struct {
			Resource         string `json:"resource"`
			Type             string `json:"type"`
			KeyAuthorization string `json:"keyAuthorization"`
		}{"challenge", ch.typ, ch.token + "." + thumbprint})
		var answer wireChallengeV1
		if err == nil && json.Unmarshal(body, &answer) == nil { // some answer {}
			status = answer.Status
		}
		return err
	})
	return status, err
}

// deactivateAuthorization gives an authorization back: the account can ask for no certificate by it any more.
func (d *v1) deactivateAuthorization(ctx context.Context, url string) error {
	return d.wire.retryQuickly(ctx, func() error {
		_, _, err := d.post(ctx, "deactivate the authorization", endpointAuthz, url, struct {
			Resource string `json:"resource"`
			Status   string `json:"status"`
		}{"authz", statusDeactivated})
		return err
	})
}

// undecided implements dialect: v1 has no orders.
func (d *v1) undecided(context.Context) ([]*order, error) { return nil, errNoList }

// refresh reads the state of what stands for an order: of its certificate if that was asked for, else of its authorizations.
func (d *v1) refresh(ctx context.Context, o *order) error {
	if o.certificateURL != "" {
		return d.readCertificate(ctx, o)
	}
	status := statusReady
	for _, url := range o.authorizations {
		az, _, err := d.readAuthz(ctx, url)
		if err != nil {
			return err
		}
		switch az.status {
		case statusValid:
		case statusInvalid, statusDeactivated, statusRevoked:
			o.status = az.status
			return nil
		default:
			status = statusPending
		}
	}
	o.status = status
	return nil
}
