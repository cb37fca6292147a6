package devca

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// maxBody bounds a request; the largest real one is a CSR with a hundred names.
const maxBody = 128 << 10

// signatureAlgorithms are those of RFC 8555 §6.2 that public CAs take. "none" and MAC algorithms MUST NOT be accepted.
var signatureAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// keyUse says how a request names its key (RFC 8555 §6.2).
type keyUse int

const (
	unsigned keyUse = iota
	byKID           // "kid", an account URL: everything after newAccount
	byJWK           // "jwk", the key itself: newAccount
	byEither        // revokeCert: an account or the certificate's key
)

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, malformed("The body could not be read")
	}
	if len(body) > maxBody {
		return nil, newProblem(http.StatusRequestEntityTooLarge, "malformed", "The body is larger than %d bytes", maxBody)
	}
	return body, nil
}

// parseFlattened takes exactly what RFC 8555 §6.2 allows: flattened JSON serialization, one signature, no unprotected header.
func parseFlattened(body []byte) (*jose.JSONWebSignature, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, malformed("The body is not a JSON object: a JWS in flattened JSON serialization is needed")
	}
	for _, name := range []string{"header", "signatures"} {
		if _, ok := members[name]; ok {
			return nil, malformed("The JWS has %q, which ACME forbids (RFC 8555 section 6.2)", name)
		}
	}
	for _, name := range []string{"protected", "payload", "signature"} {
		if _, ok := members[name]; !ok {
			return nil, malformed("The JWS has no %q", name)
		}
	}
	return parseSigned(string(body))
}

func parseSigned(text string) (*jose.JSONWebSignature, error) {
	m, err := jose.ParseSignedJSON(text, signatureAlgorithms)
	var alg *jose.ErrUnexpectedSignatureAlgorithm
	if errors.As(err, &alg) {
		p := newProblem(http.StatusBadRequest, "badSignatureAlgorithm", "The JWS is signed with %q", alg.Got)
		for _, a := range signatureAlgorithms {
			p.Algorithms = append(p.Algorithms, string(a))
		}
		return nil, p
	}
	if err != nil {
		return nil, malformed("The JWS could not be parsed")
	}
	if len(m.Signatures) != 1 {
		return nil, malformed("The JWS has %d signatures, want one", len(m.Signatures))
	}
	return m, nil
}

// verify checks a POST as RFC 8555 §6.2 to §6.5 say, and fills in the call's account, key and payload. The nonce is spent only by a request whose
// signature is good.
func (ca *CA) verify(c *call, use keyUse) error {
	if ct, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || ct != "application/jose+json" {
		return newProblem(http.StatusUnsupportedMediaType, "malformed", "Content-Type is %q, want application/jose+json", c.r.Header.Get("Content-Type"))
	}
	body, err := readBody(c.r)
	if err != nil {
		return err
	}
	m, err := parseFlattened(body)
	if err != nil {
		return err
	}
	header := m.Signatures[0].Protected
	if _, ok := header.ExtraHeaders["b64"]; ok {
		return malformed("The JWS uses the unencoded payload option")
	}
	if err := ca.findKey(c, header, use); err != nil {
		return err
	}
	if c.payload, err = checkSignature(m, c.key); err != nil {
		return err
	}
	if err := checkURL(header, c.url()); err != nil {
		return err
	}
	if header.Nonce == "" {
		return newProblem(http.StatusBadRequest, "badNonce", "The JWS has no anti-replay nonce")
	}
	if !ca.nonces.take(header.Nonce) {
		return newProblem(http.StatusBadRequest, "badNonce", "The nonce is not one of this server or was used before")
	}
	if c.acct != nil && c.acct.Status != statusValid {
		// RFC 8555 §7.3.6: "it MUST return an error response with status code 401 (Unauthorized) and type unauthorized".
		return newProblem(http.StatusUnauthorized, "unauthorized", "The account is %s", c.acct.Status)
	}
	return nil
}

// findKey: RFC 8555 §6.2: "The "jwk" and "kid" fields are mutually exclusive. Servers MUST reject requests that contain both."
func (ca *CA) findKey(c *call, header jose.Header, use keyUse) error {
	switch {
	case header.KeyID != "" && header.JSONWebKey != nil:
		return malformed("The JWS has both jwk and kid")
	case header.KeyID == "" && header.JSONWebKey == nil:
		return malformed("The JWS has neither jwk nor kid")
	case header.KeyID != "" && use == byJWK:
		return malformed("This resource needs a jwk, not a kid")
	case header.JSONWebKey != nil && use == byKID:
		return malformed("This resource needs a kid, not a jwk")
	}
	if header.JSONWebKey != nil {
		c.key = header.JSONWebKey
		return accountKeyProblem(c.key)
	}
	id, ok := c.accountID(header.KeyID)
	if !ok {
		return malformed("The kid %q is not an account URL of this server", header.KeyID)
	}
	c.acct = ca.state.account(id)
	if c.acct == nil {
		return newProblem(http.StatusBadRequest, "accountDoesNotExist", "There is no account %q", header.KeyID)
	}
	c.key = &c.acct.Key
	return nil
}

// checkSignature returns the payload that was signed: nothing (POST-as-GET) or a JSON object.
func checkSignature(m *jose.JSONWebSignature, key *jose.JSONWebKey) ([]byte, error) {
	want := algorithmFor(key)
	if got := m.Signatures[0].Protected.Algorithm; got != string(want) {
		return nil, malformed("The JWS is signed with %q, and the key is one for %s", got, want)
	}
	payload, err := m.Verify(key)
	if err != nil {
		return nil, malformed("The JWS signature is wrong")
	}
	var object map[string]json.RawMessage
	if len(payload) > 0 && json.Unmarshal(payload, &object) != nil {
		return nil, malformed("The payload is not a JSON object")
	}
	return payload, nil
}

// checkURL: RFC 8555 §6.4: "If the two do not match, then the server MUST reject the request as unauthorized."
func checkURL(header jose.Header, want string) error {
	got, ok := header.ExtraHeaders["url"].(string)
	if !ok {
		return malformed("The JWS has no url")
	}
	if got != want {
		return unauthorized("The JWS is for %q and came to %q", got, want)
	}
	return nil
}

// algorithmFor is the one algorithm that goes with a key; empty for a key that is never accepted.
func algorithmFor(key *jose.JSONWebKey) jose.SignatureAlgorithm {
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return jose.RS256
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256
		case 384:
			return jose.ES384
		case 521:
			return jose.ES512
		}
	}
	return ""
}

// accountKeyProblem is the key policy for accounts, Boulder's.
func accountKeyProblem(key *jose.JSONWebKey) error {
	if !key.Valid() || !key.IsPublic() {
		return malformed("The jwk is not a valid public key")
	}
	if why := weakKey(key.Key); why != "" {
		return newProblem(http.StatusBadRequest, "badPublicKey", "%s", why)
	}
	return nil
}

// weakKey says what is wrong with a public key, for accounts and certificates alike; empty: nothing.
func weakKey(pub any) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048, 3072, 4096:
			return ""
		}
		return fmt.Sprintf("key size not supported: %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().Name; n != "P-256" && n != "P-384" {
			return fmt.Sprintf("ECDSA curve %s not allowed", n)
		}
		return ""
	}
	return fmt.Sprintf("unknown key type %T", pub)
}

// decode reads a call's payload; members it does not know are ignored.
func (c *call) decode(v any) error {
	if len(c.payload) == 0 {
		return malformed("The payload is empty; this resource needs a JSON object")
	}
	if err := json.Unmarshal(c.payload, v); err != nil {
		return malformed("The payload does not have the members that this resource needs")
	}
	return nil
}

// postAsGet: RFC 8555 §6.3: a read is a POST with an empty payload, and only that.
func (c *call) postAsGet() error {
	if len(c.payload) > 0 {
		return malformed("This resource is read by POST-as-GET: the payload must be empty")
	}
	return nil
}
