// Package cmstore joins storage.Store with certmagic.Storage, both ways: any of certmagic's many storages can lie below us (From), and our store can be
// shown to a program over certmagic, Caddy among them (To).
//
// Neither is for a fleet. certmagic's storages have no conditional writes and its locks may be held twice; a store of ours that is shown as one of theirs keeps what
// ours promise, but its caller does not know of fences and leases that were lost.
package cmstore

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"gatelodge/storage"
)

// issuerDataField is the member of a bundle's first line in which certmagic's issuer data is kept, so that nothing of it is lost on the way there and back.
const issuerDataField = "issuer_data"

// Render returns what certmagic stores for the bundle: key and chain as PEM, and what it knows of them as JSON. directory is the URL of the CA; empty if unknown.
func Render(b *storage.Bundle, directory string) (key, chain, meta []byte, err error) {
	cert, err := b.TLSCertificate()
	if err != nil {
		return nil, nil, nil, err
	}
	if key, err = certmagic.PEMEncodePrivateKey(cert.PrivateKey); err != nil {
		return nil, nil, nil, errors.New("its private key is of a kind that certmagic does not know")
	}
	for _, der := range b.Chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	issuer, err := issuerData(b, cert.Leaf, directory)
	if err != nil {
		return nil, nil, nil, err
	}
	meta, err = json.MarshalIndent(certmagic.CertificateResource{SANs: b.Names, IssuerData: issuer}, "", "\t")
	return key, chain, meta, err
}

// issuerData is what certmagic knows of a certificate from an ACME CA. With a window in it, it goes on asking for renewal information.
func issuerData(b *storage.Bundle, leaf *x509.Certificate, directory string) (json.RawMessage, error) {
	var data acme.Certificate
	kept := b.Extra[issuerDataField]
	if kept != nil && json.Unmarshal(kept, &data) != nil {
		return kept, nil // not of an ACME CA
	}
	if directory != "" {
		data.CA = directory
	}
	if b.RenewEnd.After(b.RenewStart) {
		info := &acme.RenewalInfo{SelectedTime: b.RenewStart.Add(b.RenewEnd.Sub(b.RenewStart) / 2)}
		if had := data.RenewalInfo; had != nil && had.SuggestedWindow.Start.Equal(b.RenewStart) && had.SuggestedWindow.End.Equal(b.RenewEnd) {
			info = had
		}
		info.SuggestedWindow.Start, info.SuggestedWindow.End = b.RenewStart, b.RenewEnd
		if id, err := acme.ARIUniqueIdentifier(leaf); err == nil {
			info.UniqueIdentifier = id
		}
		data.RenewalInfo = info
	}
	return json.Marshal(data)
}

// Parse is the reverse of Render. The bundle has neither a CA nor a fence. Errors show neither key nor certificate.
func Parse(key, chain, meta []byte) (*storage.Bundle, error) {
	signer, err := certmagic.PEMDecodePrivateKey(key)
	if err != nil {
		return nil, errors.New("its private key cannot be read")
	}
	b := &storage.Bundle{}
	if b.Key, err = x509.MarshalPKCS8PrivateKey(signer); err != nil {
		return nil, errors.New("its private key is of a kind that is not supported")
	}
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			b.Chain = append(b.Chain, block.Bytes)
		}
	}
	cert, err := b.TLSCertificate() // checks that they belong together
	if err != nil {
		return nil, err
	}
	b.NotBefore, b.NotAfter = cert.Leaf.NotBefore, cert.Leaf.NotAfter
	b.Names = append(b.Names, cert.Leaf.DNSNames...)
	for _, ip := range cert.Leaf.IPAddresses {
		b.Names = append(b.Names, ip.String())
	}
	if err := readMeta(b, meta); err != nil {
		return nil, err
	}
	return b, nil
}

// readMeta takes over what certmagic knows.
func readMeta(b *storage.Bundle, meta []byte) error {
	var resource certmagic.CertificateResource
	if err := json.Unmarshal(meta, &resource); err != nil {
		return fmt.Errorf("what is known of it cannot be read: %w", err)
	}
	if resource.IssuerData == nil {
		return nil
	}
	b.Extra = map[string]json.RawMessage{issuerDataField: resource.IssuerData}
	var data acme.Certificate
	b.RenewStart, b.RenewEnd = time.Time{}, time.Time{}
	if json.Unmarshal(resource.IssuerData, &data) == nil && data.RenewalInfo != nil {
		b.RenewStart, b.RenewEnd = data.RenewalInfo.SuggestedWindow.Start, data.RenewalInfo.SuggestedWindow.End
	}
	return nil
}

// IssuerKey returns the name that certmagic gives to a CA's folder: of its directory's URL, the host and the path with "-" for "/".
func IssuerKey(directory string) string {
	_, rest, ok := strings.Cut(directory, "://")
	if !ok {
		rest = directory
	}
	rest, _, _ = strings.Cut(rest, "?")
	return certmagic.StorageKeys.Safe(strings.ReplaceAll(rest, "/", "-"))
}
