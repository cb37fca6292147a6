package devca

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/asn1"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var acmeIdentifierOID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// validateTLS: RFC 8737 §3.
func (ca *CA) validateTLS(ctx context.Context, v validation) ([]validationRecord, *problem) {
	to := ca.targets.Load().tls
	records := []validationRecord{recordFor(v.ident.Value, to)}
	raw, err := ca.cfg.Dial(ctx, "tcp", to)
	if err != nil {
		return records, connectionProblem("connect", err)
	}
	defer raw.Close()
	sni := v.ident.Value
	if v.ident.Type == identIP {
		sni = reverseName(sni)
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: sni, NextProtos: []string{"acme-tls/1"}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // the certificate is self-signed by design; checkALPNCertificate is the check
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return records, tlsProblem(err)
	}
	return records, checkALPNCertificate(conn.ConnectionState(), v)
}

func checkALPNCertificate(cs tls.ConnectionState, v validation) *problem {
	if cs.NegotiatedProtocol != "acme-tls/1" {
		return unauthorized("The server negotiated %q, want acme-tls/1", cs.NegotiatedProtocol)
	}
	cert := cs.PeerCertificates[0]
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return unauthorized("The challenge certificate is not self-signed")
	}
	// "subjectAltName extension containing the […] name being validated and no other entries".
	wantDNS, wantIP := []string{v.ident.Value}, []string(nil)
	if v.ident.Type == identIP {
		wantDNS, wantIP = nil, []string{v.ident.Value}
	}
	var ips []string
	for _, ip := range cert.IPAddresses {
		ips = append(ips, ip.String())
	}
	var names []string
	for _, n := range cert.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	if !slices.Equal(names, wantDNS) || !slices.Equal(ips, wantIP) || len(cert.EmailAddresses)+len(cert.URIs) > 0 {
		return unauthorized("The challenge certificate is for %q %v, want only %q", names, ips, v.ident.Value)
	}
	sum := sha256.Sum256([]byte(v.keyAuth))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return newProblem(http.StatusInternalServerError, "serverInternal", "The digest could not be encoded")
	}
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(acmeIdentifierOID) {
			continue
		}
		if !ext.Critical {
			return unauthorized("The acmeIdentifier extension is not critical")
		}
		if subtle.ConstantTimeCompare(ext.Value, want) != 1 {
			return unauthorized("Incorrect validation certificate for tls-alpn-01 challenge. Expected acmeValidationV1 extension value %x for this challenge but got %x",
				sum, octets(ext.Value))
		}
		return nil
	}
	return unauthorized("The challenge certificate has no acmeIdentifier extension")
}

// octets unwraps an OCTET STRING; what is none is shown as it is.
func octets(der []byte) []byte {
	var content []byte
	if rest, err := asn1.Unmarshal(der, &content); err != nil || len(rest) > 0 {
		return der
	}
	return content
}

// reverseName is the SNI for an address (RFC 8738 §6): its name below in-addr.arpa or ip6.arpa.
func reverseName(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr // not reached: identifiers are checked
	}
	var b strings.Builder
	raw := ip.AsSlice()
	slices.Reverse(raw)
	for _, octet := range raw {
		if ip.Is4() {
			b.WriteString(strconv.Itoa(int(octet)) + ".")
		} else {
			fmt.Fprintf(&b, "%x.%x.", octet&15, octet>>4)
		}
	}
	if ip.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}
