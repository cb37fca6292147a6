package storage

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// parsePair returns chain and key as a certificate for handshakes, or says why they cannot be one. Errors never show the key.
func parsePair(chain [][]byte, key []byte) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("it has no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("parse its certificate: %w", err)
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("its private key is not that of its certificate")
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: signer, Leaf: leaf}, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	if len(der) == 0 {
		return nil, errors.New("its private key is empty")
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("its private key cannot be parsed") // the cause might quote it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its private key is of a kind that cannot sign (%T)", key)
	}
	return signer, nil
}
