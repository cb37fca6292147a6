package acmeclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// sign returns the flattened JSON serialization of payload (RFC 8555 §6.2), signed by an account key that the CA knows as kid. With an empty kid it does
// not know the key yet and gets it along. An empty payload that is not nil is a POST-as-GET (§6.3).
func sign(key crypto.Signer, kid, nonce, url string, payload []byte) ([]byte, error) {
	alg, err := signatureOf(key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	opts := (&jose.SignerOptions{NonceSource: oneNonce(nonce), EmbedJWK: kid == ""}).WithHeader("url", url)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return []byte(jws.FullSerialize()), nil
}

// signatureOf is the algorithm that goes with an account key (RFC 8555 §6.2; RS256 and ES256 are what CAs must take or all do).
func signatureOf(key crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		}
		return "", fmt.Errorf("its key is on the curve %s, wanted is P-256 or P-384", public.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < 2048 || bits > 8192 {
			return "", fmt.Errorf("its key has %d bits, wanted are 2048 to 8192 for RSA", bits)
		}
		return jose.RS256, nil
	}
	return "", fmt.Errorf("its key is a %T, wanted is ECDSA P-256, P-384 or RSA", key.Public())
}

// oneNonce is a jose.NonceSource for one signature.
type oneNonce string

func (n oneNonce) Nonce() (string, error) { return string(n), nil }
