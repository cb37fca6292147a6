package devca

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-jose/go-jose/v4"
)

// maxBodyV1 is Boulder's limit.
const maxBodyV1 = 50_000

// parsedAlgorithms are those that a v1 request may name without being unreadable; only the one that goes with the key is then accepted.
var parsedAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	jose.HS256, jose.HS384, jose.HS512,
}

// signerV1 says whose key a v1 request may be signed by.
type signerV1 int

const (
	registered signerV1 = iota // an account's that is valid and has agreed to the terms, or need not
	anyKey                     // new-reg and revoke-cert: any
)

// verifyV1 checks a signed v1 request in Boulder's order: length, form, key, account, algorithm, signature, nonce, payload, resource. The request need not
// say what URL it is for: that is v1's weakness (facts, "downgrade concerns").
func (ca *CA) verifyV1(c *call, who signerV1, resource string) error {
	m, err := readJWSV1(c.r)
	if err != nil {
		return err
	}
	if len(m.Signatures) != 1 {
		return malformed("Too many signatures in POST body")
	}
	header := m.Signatures[0].Header // protected and unprotected: what the clients of 2015 sent
	c.key = header.JSONWebKey
	if c.key == nil {
		return malformed("No JWK in JWS header")
	}
	if err := keyProblemV1(c.key); err != nil {
		return err
	}
	c.acct = ca.state.accountByKey(c.key)
	if who == registered {
		if c.acct == nil {
			return unauthorized("No registration exists matching provided key")
		}
		if c.acct.Status != statusValid {
			return unauthorized("Registration is not valid, has status '%s'", c.acct.Status)
		}
	}
	if err := algorithmProblemV1(header.Algorithm, c.key); err != nil {
		return err
	}
	if c.payload, err = m.Verify(c.key); err != nil {
		return malformed("JWS verification error")
	}
	if header.Nonce == "" {
		return newProblem(http.StatusBadRequest, "badNonce", "JWS has no anti-replay nonce")
	}
	if !ca.nonces.take(header.Nonce) {
		return newProblem(http.StatusBadRequest, "badNonce", "JWS has invalid anti-replay nonce %s", header.Nonce)
	}
	return checkResource(c.payload, resource)
}

// readJWSV1 takes every serialization that Boulder took.
func readJWSV1(r *http.Request) (*jose.JSONWebSignature, error) {
	if r.ContentLength < 0 {
		return nil, newProblem(http.StatusLengthRequired, "malformed", "missing Content-Length header")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyV1+1))
	if err != nil {
		return nil, newProblem(http.StatusInternalServerError, "serverInternal", "unable to read request body")
	}
	if len(body) > maxBodyV1 {
		return nil, unauthorized("request body too large")
	}
	parse := jose.ParseSignedCompact
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		parse = jose.ParseSignedJSON
	}
	m, err := parse(string(body), parsedAlgorithms)
	var alg *jose.ErrUnexpectedSignatureAlgorithm
	if errors.As(err, &alg) && alg.Got != "" {
		return nil, unsupportedAlgorithmV1(string(alg.Got))
	}
	if err != nil || len(m.Signatures) == 0 {
		return nil, malformed("Parse error reading JWS")
	}
	return m, nil
}

func unsupportedAlgorithmV1(alg string) *problem {
	return malformed("JWS signature header contains unsupported algorithm %q, expected one of RS256, ES256, ES384 or ES512", alg)
}

func algorithmProblemV1(alg string, key *jose.JSONWebKey) error {
	switch jose.SignatureAlgorithm(alg) {
	case jose.RS256, jose.ES256, jose.ES384, jose.ES512:
	default:
		return unsupportedAlgorithmV1(alg)
	}
	if want := string(algorithmFor(key)); alg != want {
		return malformed("JWS signature header algorithm %q does not match expected algorithm %q for JWK", alg, want)
	}
	return nil
}

// keyProblemV1 is the key policy in two steps, as it was spread over two of Boulder's services.
func keyProblemV1(key *jose.JSONWebKey) error {
	if !key.Valid() || !key.IsPublic() {
		return malformed("Invalid JWK in JWS header")
	}
	why := weakKey(key.Key)
	if why == "" {
		return nil
	}
	if k, ok := key.Key.(*rsa.PublicKey); ok {
		if bits := k.N.BitLen(); bits < 2048 {
			why = fmt.Sprintf("key too small: %d", bits)
		} else if bits < 4096 {
			return malformed("Error creating new registration :: invalid public key: %s", why)
		}
	}
	return newProblem(http.StatusBadRequest, "badPublicKey", "%s", why)
}

// checkResource is all that ties a v1 request to its target.
func checkResource(payload []byte, want string) error {
	var p struct {
		Resource string `json:"resource"`
	}
	if json.Unmarshal(payload, &p) != nil {
		return malformed("Request payload did not parse as JSON")
	}
	if p.Resource == "" {
		return malformed("Request payload does not specify a resource")
	}
	if p.Resource != want {
		return malformed("JWS resource payload does not match the HTTP resource: %s != %s", p.Resource, want)
	}
	return nil
}

func (c *call) decodeV1(v any) error {
	if err := json.Unmarshal(c.payload, v); err != nil {
		return malformed("Error unmarshaling JSON")
	}
	return nil
}
