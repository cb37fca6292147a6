package acmeclient

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// check holds a request of the client to the recorded one.
func (p *player) check(e *recordedExchange, r *http.Request, body []byte) error {
	if r.Method != e.Request.Method || r.URL.Path != e.path() {
		return fmt.Errorf("sent %s %s, recorded %s %s", r.Method, r.URL.Path, e.Request.Method, e.path())
	}
	if r.Method != http.MethodPost {
		if len(body) > 0 {
			return errors.New("sent a body")
		}
		return nil
	}
	if r.ContentLength != int64(len(body)) || len(r.TransferEncoding) > 0 || r.Header.Get("Content-Type") != "application/jose+json" {
		return fmt.Errorf("sent Content-Length %d, Transfer-Encoding %v, Content-Type %q", r.ContentLength, r.TransferEncoding, r.Header.Get("Content-Type"))
	}
	var form map[string]any
	if err := json.Unmarshal(body, &form); err != nil {
		return err
	}
	if got := slices.Sorted(maps.Keys(form)); !slices.Equal(got, []string{"payload", "protected", "signature"}) {
		return fmt.Errorf("sent a JWS of %v, not the flattened form", got)
	}
	jws, err := jose.ParseSignedJSON(string(body), []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256})
	if err != nil {
		return err
	}
	head := jws.Signatures[0].Protected
	if head.JSONWebKey == nil || !head.JSONWebKey.IsPublic() {
		return errors.New("sent no public key")
	}
	payload, err := jws.Verify(head.JSONWebKey)
	if err != nil {
		return err
	}
	if !p.given[head.Nonce] {
		return fmt.Errorf("sent the nonce %q, which was not given or was used", head.Nonce)
	}
	delete(p.given, head.Nonce)
	var protected, sent map[string]any
	if err := decodeSegment(form["protected"], &protected); err != nil {
		return err
	}
	if err := p.sameHeader(e.Request.Protected, protected); err != nil {
		return fmt.Errorf("protected header: %w", err)
	}
	if err := json.Unmarshal(payload, &sent); err != nil {
		return err
	}
	return p.samePayload(e.payload(), sent, head.JSONWebKey)
}

func decodeSegment(segment any, v any) error {
	s, _ := segment.(string)
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// sameHeader compares protected headers: the same members, the same algorithm, a key of the same kind.
func (p *player) sameHeader(recorded, sent map[string]any) error {
	if want, got := slices.Sorted(maps.Keys(recorded)), slices.Sorted(maps.Keys(sent)); !slices.Equal(want, got) {
		return fmt.Errorf("sent %v, recorded %v", got, want)
	}
	if sent["alg"] != recorded["alg"] {
		return fmt.Errorf("sent alg %v, recorded %v", sent["alg"], recorded["alg"])
	}
	if recorded["url"] != nil && sent["url"] != p.ours(recorded["url"].(string)) {
		return fmt.Errorf("sent url %v, recorded %v", sent["url"], recorded["url"])
	}
	a, _ := recorded["jwk"].(map[string]any)
	b, _ := sent["jwk"].(map[string]any)
	if !slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) || a["kty"] != b["kty"] || a["crv"] != b["crv"] || a["e"] != b["e"] {
		return fmt.Errorf("sent jwk %v, recorded %v", b, a)
	}
	return nil
}

// samePayload compares payloads member by member.
func (p *player) samePayload(recorded, sent map[string]any, key *jose.JSONWebKey) error {
	if want, got := slices.Sorted(maps.Keys(recorded)), slices.Sorted(maps.Keys(sent)); !slices.Equal(want, got) {
		return fmt.Errorf("payload: sent %v, recorded %v", got, want)
	}
	for member, want := range recorded {
		var err error
		got := sent[member]
		switch member {
		case "keyAuthorization":
			err = sameKeyAuthorization(want, got, key)
		case "csr":
			err = sameCSR(want, got)
		case "protected", "payload", "signature": // of a key change
			if member == "payload" {
				err = p.sameKeyChange(recorded, sent)
			}
		default:
			if s, ok := want.(string); ok {
				want = p.ours(s)
			}
			if !reflect.DeepEqual(want, got) {
				err = fmt.Errorf("sent %v, recorded %v", got, want)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", member, err)
		}
	}
	return nil
}

// sameKeyAuthorization: the recorded token, and the thumbprint of the key that signed.
func sameKeyAuthorization(recorded, sent any, key *jose.JSONWebKey) error {
	token, _, _ := strings.Cut(recorded.(string), ".")
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return err
	}
	if want := token + "." + base64.RawURLEncoding.EncodeToString(thumbprint); sent != want {
		return fmt.Errorf("sent %v, wanted %v", sent, want)
	}
	return nil
}

func sameCSR(recorded, sent any) error {
	var names [2][]string
	for i, s := range []any{recorded, sent} {
		csr, err := parseCSR(s)
		if err != nil {
			return err
		}
		names[i] = csr.DNSNames
	}
	if !slices.Equal(names[0], names[1]) {
		return fmt.Errorf("sent a CSR for %v, recorded for %v", names[1], names[0])
	}
	return nil
}

func parseCSR(s any) (*x509.CertificateRequest, error) {
	text, _ := s.(string)
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// sameKeyChange compares the inner signatures.
func (p *player) sameKeyChange(recorded, sent map[string]any) error {
	var heads, changes [2]map[string]any
	for i, from := range []map[string]any{recorded, sent} {
		if err := errors.Join(decodeSegment(from["protected"], &heads[i]), decodeSegment(from["payload"], &changes[i])); err != nil {
			return err
		}
	}
	if err := p.sameHeader(heads[0], heads[1]); err != nil {
		return err
	}
	if changes[1]["account"] != p.ours(changes[0]["account"].(string)) || !reflect.DeepEqual(changes[1]["newKey"], heads[1]["jwk"]) || len(changes[1]) != len(changes[0]) {
		return fmt.Errorf("sent %v, recorded %v", changes[1], changes[0])
	}
	inner, err := json.Marshal(map[string]any{"protected": sent["protected"], "payload": sent["payload"], "signature": sent["signature"]})
	if err != nil {
		return err
	}
	jws, err := jose.ParseSignedJSON(string(inner), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	_, err = jws.Verify(jws.Signatures[0].Protected.JSONWebKey)
	return err
}
