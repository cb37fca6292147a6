package devca

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The challenge types.
const (
	challengeHTTP = "http-01"     // RFC 8555 §8.3
	challengeDNS  = "dns-01"      // RFC 8555 §8.4
	challengeTLS  = "tls-alpn-01" // RFC 8737
)

// validation is one attempt: everything it needs, so that it holds no lock.
type validation struct {
	kind    string
	ident   identifier
	token   string
	keyAuth string
}

// validationRecord says what was connected to, one for each redirect.
type validationRecord struct {
	URL      string   `json:"url,omitempty"`
	Hostname string   `json:"hostname"`
	Port     string   `json:"port,omitempty"`
	Resolved []string `json:"addressesResolved,omitempty"`
	Used     string   `json:"addressUsed,omitempty"`
}

// trail collects records from the transport, whose dialling goroutine may outlive the request that it was for.
type trail struct {
	mu   sync.Mutex // guards list
	list []validationRecord
}

func (t *trail) add(r validationRecord) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, r)
}

// records returns a copy, the first one with the URL that was asked for.
func (t *trail) records(url string) []validationRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := slices.Clone(t.list)
	if len(list) > 0 {
		list[0].URL = url
	}
	return list
}

// targets are the addresses that validation connects to, as IP:port; empty ones are not offered.
type targets struct{ http, tls, dns string }

func newTargets(httpAddr, tlsAddr, dnsAddr string) (*targets, error) {
	var t targets
	for _, a := range []struct {
		to   *string
		addr string
		what string
	}{{&t.http, httpAddr, "HTTPAddr"}, {&t.tls, tlsAddr, "TLSAddr"}, {&t.dns, dnsAddr, "DNSAddr"}} {
		if a.addr == "" {
			continue
		}
		var err error
		if *a.to, err = resolveLoopback(a.addr); err != nil {
			return nil, fmt.Errorf("%s: %w", a.what, err)
		}
	}
	return &t, nil
}

// challengeKinds are the challenge types that there is an address for.
func (ca *CA) challengeKinds() []string {
	t := ca.targets.Load()
	var kinds []string
	for _, k := range []struct{ kind, addr string }{{challengeTLS, t.tls}, {challengeHTTP, t.http}, {challengeDNS, t.dns}} {
		if k.addr != "" {
			kinds = append(kinds, k.kind)
		}
	}
	return kinds
}

// validate connects and compares; nil means that the client controls the name.
func (ca *CA) validate(ctx context.Context, v validation) ([]validationRecord, *problem) {
	ctx, cancel := context.WithTimeout(ctx, validationTimeout)
	defer cancel()
	switch v.kind {
	case challengeHTTP:
		return ca.validateHTTP(ctx, v)
	case challengeTLS:
		return ca.validateTLS(ctx, v)
	default:
		return ca.validateDNS(ctx, v)
	}
}

// maxRedirects is Let's Encrypt's.
const maxRedirects = 10

// validateHTTP: RFC 8555 §8.3. Redirects may name any host, but lead only to our two addresses: port 80 is HTTPAddr and port 443 TLSAddr.
func (ca *CA) validateHTTP(ctx context.Context, v validation) ([]validationRecord, *problem) {
	var trail trail
	t := ca.targets.Load()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to, record, err := t.forURLHost(addr)
			if err != nil {
				return nil, err
			}
			trail.add(record)
			return ca.cfg.Dial(ctx, network, to)
		},
		// RFC 8555 §8.3 lets https redirects go unverified: the certificate may be what this order is for.
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 32 << 10,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}}
	host := v.ident.Value
	if v.ident.Type == identIP && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	u := url.URL{Scheme: "http", Host: host, Path: "/.well-known/acme-challenge/" + v.token}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, malformed("%q makes no URL", v.ident.Value)
	}
	req.Header.Set("User-Agent", "devca validation")
	resp, err := client.Do(req)
	if err != nil {
		return trail.records(u.String()), connectionProblem("Fetching "+u.String(), err)
	}
	defer resp.Body.Close()
	records := trail.records(u.String())
	return records, checkHTTPAnswer(resp, records, v.keyAuth)
}

// checkHTTPAnswer speaks Boulder's words.
func checkHTTPAnswer(resp *http.Response, records []validationRecord, keyAuth string) *problem {
	u := resp.Request.URL.String()
	if resp.StatusCode != http.StatusOK {
		last := records[len(records)-1] // there was an answer, so there was a connection
		return unauthorized("Invalid response from %s [%s]: %d", u, last.Used, resp.StatusCode)
	}
	// Some more than the key authorization, so that a longer body is seen to be wrong and no body can fill the memory.
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(len(keyAuth))+128))
	if err != nil {
		return connectionProblem("Fetching "+u, err)
	}
	// "The server SHOULD ignore whitespace characters at the end of the body."
	if got := strings.TrimRight(string(body), " \t\r\n"); subtle.ConstantTimeCompare([]byte(got), []byte(keyAuth)) != 1 {
		return unauthorized("The key authorization file from the server did not match this challenge %q != %q", keyAuth, shorten(got))
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

func (t *targets) forURLHost(addr string) (string, validationRecord, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", validationRecord{}, err
	}
	to := map[string]string{"80": t.http, "443": t.tls}[port]
	if to == "" {
		return "", validationRecord{}, fmt.Errorf("port %s is not one that this CA connects to", port)
	}
	return to, recordFor(host, to), nil
}

func recordFor(host, addr string) validationRecord {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return validationRecord{Hostname: host}
	}
	return validationRecord{Hostname: host, Port: port, Resolved: []string{ip}, Used: ip}
}

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

// validateDNS: RFC 8555 §8.4, asking DNSAddr alone.
func (ca *CA) validateDNS(ctx context.Context, v validation) ([]validationRecord, *problem) {
	to := ca.targets.Load().dns
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return ca.cfg.Dial(ctx, network, to)
	}}
	name := "_acme-challenge." + v.ident.Value
	// The final dot keeps the machine's search list out of it.
	texts, err := resolver.LookupTXT(ctx, name+".")
	var none *net.DNSError
	switch {
	case errors.As(err, &none) && none.IsNotFound, err == nil && len(texts) == 0:
		return nil, unauthorized("No TXT record found at %s", name)
	case err != nil:
		return nil, newProblem(http.StatusBadRequest, "dns", "DNS problem: looking up TXT for %s: %s", name, dnsFault(err))
	}
	sum := sha256.Sum256([]byte(v.keyAuth))
	if !slices.Contains(texts, base64.RawURLEncoding.EncodeToString(sum[:])) {
		more := ""
		if len(texts) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(texts)-1)
		}
		return nil, unauthorized("Incorrect TXT record %q%s found at %s", shorten(texts[0]), more, name)
	}
	return []validationRecord{{Hostname: v.ident.Value}}, nil
}

func dnsFault(err error) string {
	var e *net.DNSError
	if errors.As(err, &e) {
		return e.Err
	}
	return err.Error()
}

// connectionProblem: RFC 8555 §6.7: "connection: The server could not connect to validation target", "tls: …".
func connectionProblem(doing string, err error) *problem {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which doing has already
	}
	if isTLS(err) {
		return tlsProblem(err)
	}
	why := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "Connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		why = "Timeout"
	}
	return newProblem(http.StatusBadRequest, "connection", "%s: %s", doing, why)
}

// isTLS reports whether a handshake failed by TLS's own rules: an alert of either side, or an answer that is no TLS.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var op *net.OpError
	return errors.As(err, &record) || errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error")
}

// tlsProblem is for a handshake that failed. One that the network ended is a connection problem; what is left is what crypto/tls found wrong itself.
func tlsProblem(err error) *problem {
	var op *net.OpError
	kind := "tls"
	if !isTLS(err) && (errors.As(err, &op) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF)) {
		kind = "connection"
	}
	return newProblem(http.StatusBadRequest, kind, "%v", err)
}
