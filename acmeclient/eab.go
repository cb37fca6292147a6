package acmeclient

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// EAB is an external account binding (RFC 8555 §7.3.4): what a CA that sells certificates, or counts them, gave its customer, so that the ACME
// account becomes the customer's. It is needed once, when the account is made. The zero value is none.
type EAB struct {
	KID  string // key identifier
	HMAC string `json:"-"` // key, in base64url or base64, with or without padding; a secret

	// Algorithm is HS256, HS384 or HS512; empty means HS256, which all CAs that say nothing mean.
	Algorithm string
}

// String tells nothing of the secret.
func (e EAB) String() string {
	if e == (EAB{}) {
		return "none"
	}
	return "(set)"
}

// GoString is String.
func (e EAB) GoString() string { return e.String() }

// minHMAC bounds keys from below: shorter ones were cut when they were copied.
const minHMAC = 16

// validate says what is wrong, without the secret.
func (e EAB) validate() error {
	switch {
	case e == (EAB{}):
		return nil
	case e.KID == "":
		return errors.New("external account binding: the key identifier (kid) is missing")
	case e.HMAC == "":
		return errors.New("external account binding: the key (hmac) is missing")
	}
	if _, _, err := e.mac(); err != nil {
		return err
	}
	_, err := decodeHMAC(e.HMAC)
	return err
}

// mac returns the algorithm, and its name in JWS (RFC 7518 §3.1).
func (e EAB) mac() (func() hash.Hash, string, error) {
	switch e.Algorithm {
	case "", "HS256":
		return sha256.New, "HS256", nil
	case "HS384":
		return sha512.New384, "HS384", nil
	case "HS512":
		return sha512.New, "HS512", nil
	}
	return nil, "", fmt.Errorf("external account binding: algorithm %q, allowed are HS256, HS384 and HS512", e.Algorithm)
}

// decodeHMAC reads a key in either alphabet of base64 (RFC 4648 §4 and §5), padded or not, with the white space of a file around it.
func decodeHMAC(s string) ([]byte, error) {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	key, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(s))
	switch {
	case err != nil: // base64's own error would tell where; the place of a secret's odd character is nobody's business
		return nil, errors.New("external account binding: the key (hmac) is not in base64url or base64")
	case len(key) < minHMAC:
		return nil, fmt.Errorf("external account binding: the key (hmac) has %d bytes only; copy it whole", len(key))
	}
	return key, nil
}

// bind returns the externalAccountBinding of a newAccount request to the URL by the account key: a JWS over that key by the CA's. It is made by hand, since
// go-jose refuses keys shorter than their hash, which CAs give out.
func (e EAB) bind(newAccount string, account crypto.Signer) (json.RawMessage, error) {
	newHash, alg, err := e.mac()
	if err != nil {
		return nil, err
	}
	secret, err := decodeHMAC(e.HMAC)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(jose.JSONWebKey{Key: account.Public()})
	if err != nil {
		return nil, fmt.Errorf("encode the account key: %w", err)
	}
	protected, err := json.Marshal(map[string]string{"alg": alg, "kid": e.KID, "url": newAccount})
	if err != nil {
		return nil, fmt.Errorf("encode the binding: %w", err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	head, body := b64(protected), b64(payload)
	mac := hmac.New(newHash, secret)
	mac.Write([]byte(head + "." + body))
	return json.Marshal(map[string]string{"protected": head, "payload": body, "signature": b64(mac.Sum(nil))})
}
