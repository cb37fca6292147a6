package acmeclient

import (
	"crypto"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// sign returns the flattened JSON serialization of payload (RFC 8555 §6.2), signed by a P-256 account key that the CA knows as kid. With an empty kid it does
// not know the key yet and gets it along. An empty payload that is not nil is a POST-as-GET (§6.3).
func sign(key crypto.Signer, kid, nonce, url string, payload []byte) ([]byte, error) {
	opts := (&jose.SignerOptions{NonceSource: oneNonce(nonce), EmbedJWK: kid == ""}).WithHeader("url", url)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return []byte(jws.FullSerialize()), nil
}

// oneNonce is a jose.NonceSource for one signature.
type oneNonce string

func (n oneNonce) Nonce() (string, error) { return string(n), nil }
