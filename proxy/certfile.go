package proxy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// ReadCertificates reads a file of certificates in PEM, with comments or without. Whatever else is in it, or is damaged, is an error that names file and line, all of
// them in one go; so is a file without any.
func ReadCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseCertificates(file, text)
}

// parseCertificates looks at each block by itself: encoding/pem passes over those that are cut off.
func parseCertificates(file string, text []byte) ([]*x509.Certificate, error) {
	begin := []byte("-----BEGIN ")
	var certs []*x509.Certificate
	var faults []error
	line := 1
	for at := bytes.Index(text, begin); at >= 0; at = bytes.Index(text, begin) {
		line += bytes.Count(text[:at], []byte("\n"))
		text = text[at:]
		end := len(text)
		if next := bytes.Index(text[1:], begin); next >= 0 {
			end = next + 1
		}
		cert, err := parseCertificate(text[:end])
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, line, err))
		} else {
			certs = append(certs, cert)
		}
		line += bytes.Count(text[:end], []byte("\n"))
		text = text[end:]
	}
	if len(certs)+len(faults) == 0 {
		faults = append(faults, fmt.Errorf("%s: there is no certificate in it: a certificate begins with -----BEGIN CERTIFICATE-----", file))
	}
	return certs, errors.Join(faults...)
}

func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("this PEM block is damaged or cut off")
	case block.Type != "CERTIFICATE":
		return nil, fmt.Errorf("this is a %.40q, and only certificates belong here", block.Type)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("this is no valid certificate: %w", err)
	}
	return cert, nil
}
