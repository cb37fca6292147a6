package acmeclient

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	selfTTL       = 30 * time.Second // of the answer to ourselves, if nobody is left to remove it
	selfRedirects = 3
	selfParallel  = 16 // connections to names' addresses, of all CAs of a process together
	selfHeader    = 16 << 10
)

// An encounter is what became of one request for the name's challenge URL.
type encounter struct {
	addr netip.Addr
	ours bool
	kind string // see Finding; empty: it says nothing of the name
	saw  string
}

// askOurselves asks for a challenge of our own making by the way that a CA goes for http-01: from the addresses that the DNS has for the name, at the CA's port. The
// answer is published like a real one, so that any node of the fleet may give it. It reports whether one was ours.
//
// There is no such question for tls-alpn-01: a CA asks for that by the name alone, so our answer would stand where the real one of an order that is still undecided does.
func (c *Client) askOurselves(ctx context.Context, name string, addrs []netip.Addr) (ours bool, findings []Finding) {
	token := rand.Text()
	answer := newPublished(ChallengeHTTP01, name, token, token+"."+rand.Text(), nil)
	answer.record.Expires = time.Now().Add(selfTTL).UTC()
	defer c.cfg.Responder.retract(ctx, answer)
	if err := c.cfg.Responder.publish(ctx, answer); err != nil {
		return false, []Finding{{Kind: "connection", Saw: fmt.Sprintf("its challenge URL was not tried: %v", err), Advice: "see that the storage can be written"}}
	}
	addrs = addrs[:min(len(addrs), maxLooked)]
	met := make([]encounter, len(addrs))
	var g sync.WaitGroup
	for i, addr := range addrs {
		g.Go(func() { met[i] = c.meet(ctx, name, addr, answer.record) })
	}
	g.Wait()
	return judge(name, met)
}

// judge makes findings of what was met. One address that leads to us is enough to go on; the CA may still choose another.
func judge(name string, met []encounter) (ours bool, findings []Finding) {
	for _, e := range met {
		ours = ours || e.ours
	}
	for _, e := range met {
		if e.ours {
			continue
		}
		f := Finding{Kind: e.kind, Saw: e.saw, Refuses: !ours && e.kind != ""}
		switch {
		case ours:
			f.Advice = "other addresses of the name lead here, but a CA may choose this one: remove its record, or let it lead here"
		case e.kind == "unauthorized":
			f.Advice = fmt.Sprintf("point the address records of %s to this server, or let what answers there pass %s on to it", name, httpPrefix)
		default:
			f.Advice = fmt.Sprintf("port 80 of %s must lead to this server; check firewall and address records, and whether this server can reach its own public address at all", e.addr)
		}
		if f.Kind == "" {
			f.Kind = "connection"
		}
		findings = append(findings, f)
	}
	return ours, findings
}

// meet asks at one address. It follows redirects of the name to itself alone, by http or https, and stays at the address.
func (c *Client) meet(ctx context.Context, name string, addr netip.Addr, answer challengeRecord) encounter {
	e := encounter{addr: addr}
	select {
	case c.cfg.Responder.looking <- struct{}{}:
		defer func() { <-c.cfg.Responder.looking }()
	case <-ctx.Done():
		e.saw = fmt.Sprintf("it leads to %s, which was not tried: too many names are looked at", addr)
		return e
	}
	transport := c.transportTo(addr)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if hostOf(r.URL.Host) != name || len(via) > selfRedirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	host := name
	if addr.Is6() && name == addr.String() {
		host = "[" + name + "]"
	}
	u := url.URL{Scheme: "http", Host: host, Path: httpPrefix + answer.Token}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		e.saw = "its name makes no URL"
		return e
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	res, err := client.Do(req)
	if err != nil {
		return e.failed(err)
	}
	defer res.Body.Close()
	return e.answered(res, answer.KeyAuth)
}

// transportTo connects to the address whatever the URL says, at the port where the CA asks.
func (c *Client) transportTo(addr netip.Addr) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(to)
			switch {
			case err != nil:
				return nil, err
			case port == "80":
				port = strconv.Itoa(c.cfg.HTTPPort)
			case port != "443":
				return nil, fmt.Errorf("it redirects to port %s, where no CA follows", clean(port))
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		},
		// As CAs do (RFC 8555 §8.3): the certificate may be what this order is for, and nothing that is worth anything is sent.
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: selfHeader,
	}
}

// answered tells our answer from another's.
func (e encounter) answered(res *http.Response, want string) encounter {
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(len(want))+64))
	switch {
	case err != nil:
		return e.failed(err)
	case res.StatusCode == http.StatusOK && strings.TrimSpace(string(body)) == want:
		e.ours = true
		return e
	case res.StatusCode >= 300 && res.StatusCode < 400 && res.Header.Get("Location") != "": // a CA follows, and may find us
		e.saw = fmt.Sprintf("it leads to %s, which redirects to %s, where only a CA follows", e.addr, clean(res.Header.Get("Location")))
		return e
	}
	e.kind = "unauthorized"
	e.saw = fmt.Sprintf("it leads to %s, where something else answered the question for our challenge (status %d)", e.addr, res.StatusCode)
	return e
}

// failed tells what keeps everybody from an address from what keeps us.
func (e encounter) failed(err error) encounter {
	err = strip(err)
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM),
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, context.Canceled):
		e.saw = fmt.Sprintf("it leads to %s, which cannot be reached from here: %v", e.addr, err)
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, context.DeadlineExceeded):
		e.kind, e.saw = "connection", fmt.Sprintf("it leads to %s, where nobody answers: %s", e.addr, whyNot(err))
	default:
		e.kind, e.saw = "unauthorized", fmt.Sprintf("it leads to %s, where something else answered the question for our challenge: %s", e.addr, clean(err.Error()))
	}
	return e
}

func whyNot(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "time ran out"
	}
	return clean(err.Error())
}
