package acmeclient

import (
	"crypto"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
)

// signV1 returns the flattened JSON serialization of payload as v1 wants it: exactly alg, jwk and nonce in the protected header.
func signV1(key crypto.Signer, nonce string, payload []byte) ([]byte, error) {
	return signEmbedded(key, payload, &jose.SignerOptions{NonceSource: oneNonce(nonce), EmbedJWK: true})
}

// signInnerV1 returns the inner signature of a key change: by the new key, and without a nonce.
func signInnerV1(key crypto.Signer, payload []byte) (map[string]string, error) {
	signed, err := signEmbedded(key, payload, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		return nil, err
	}
	var members map[string]string
	if err := json.Unmarshal(signed, &members); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return members, nil
}

func signEmbedded(key crypto.Signer, payload []byte, opts *jose.SignerOptions) ([]byte, error) {
	opaque := cryptosigner.Opaque(key)
	algs := opaque.Algs()
	if len(algs) == 0 {
		return nil, fmt.Errorf("sign: no signature algorithm of ACME goes with a %T", key.Public())
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algs[0], Key: opaque}, opts) // RS256 is first of RSA's
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return []byte(jws.FullSerialize()), nil
}
