package devca

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

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
