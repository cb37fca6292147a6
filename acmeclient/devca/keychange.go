package devca

import (
	"encoding/json"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// serveKeyChange: RFC 8555 §7.3.5. The outer JWS is signed by the old key, its payload is a JWS by the new one.
func (ca *CA) serveKeyChange(c *call) (*reply, error) {
	inner, err := parseFlattened(c.payload)
	if err != nil {
		return nil, err
	}
	header := inner.Signatures[0].Protected
	newKey := header.JSONWebKey
	if newKey == nil || header.KeyID != "" {
		return nil, malformed("The inner JWS needs a jwk and no kid")
	}
	if err := accountKeyProblem(newKey); err != nil {
		return nil, err
	}
	// "the inner JWS […] MUST omit the nonce": checked here, since nobody else would notice one.
	if header.Nonce != "" {
		return nil, malformed("The inner JWS has a nonce")
	}
	payload, err := checkSignature(inner, newKey)
	if err != nil {
		return nil, err
	}
	if got, _ := header.ExtraHeaders["url"].(string); got != c.url() {
		return nil, malformed("The inner JWS has another url than the outer one")
	}
	var change struct {
		Account string           `json:"account"`
		OldKey  *jose.JSONWebKey `json:"oldKey"`
	}
	if err := json.Unmarshal(payload, &change); err != nil || change.OldKey == nil {
		return nil, malformed("The inner payload needs account and oldKey")
	}
	if change.Account != c.accountURL(c.acct.ID) {
		return nil, malformed("The inner payload is about another account")
	}
	if thumbprint(change.OldKey) != thumbprint(&c.acct.Key) {
		return nil, malformed("oldKey is not the account's key")
	}
	a, err := ca.replaceKey(c, newKey)
	if err != nil {
		return nil, err
	}
	ca.logf("v2 account %d: key changed", a.ID)
	return answer(http.StatusOK, c.viewAccount(a)), nil
}

func (ca *CA) replaceKey(c *call, newKey *jose.JSONWebKey) (*account, error) {
	return ca.changeAccount(c.acct.ID, func(a *account) error {
		if other := ca.state.accountByKey(newKey); other != nil {
			return newProblem(http.StatusConflict, "malformed", "The new key belongs to an account already").
				with("Location", c.accountURL(other.ID))
		}
		a.Key = jose.JSONWebKey{Key: newKey.Key}
		return nil
	})
}
