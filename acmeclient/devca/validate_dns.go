package devca

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
)

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
