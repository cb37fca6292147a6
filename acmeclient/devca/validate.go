package devca

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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

func recordFor(host, addr string) validationRecord {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return validationRecord{Hostname: host}
	}
	return validationRecord{Hostname: host, Port: port, Resolved: []string{ip}, Used: ip}
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
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
