package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load is what clients do in a row: conns clients with a connection each, and streams requests at a time on each.
type load struct {
	path           string
	body           int // bytes to send by POST; zero makes it a GET
	conns, streams int
	protocol       string
	fresh          bool // a connection for each request
	resume         bool // with the session of the one before
}

// generator has the clients of a row.
type generator struct {
	load
	url     string
	body    []byte
	clients []*http.Client

	handshakes, resumed atomic.Int64
}

func newGenerator(s *site, addr string, l load) (*generator, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	g := &generator{load: l, url: "https://" + net.JoinHostPort(host, port) + l.path, body: make([]byte, l.body)}
	for range l.conns {
		g.clients = append(g.clients, g.newClient(s, addr))
	}
	return g, nil
}

func (g *generator) newClient(s *site, addr string) *http.Client {
	l := g.load
	config := s.tlsConfig(l.protocol)
	config.VerifyConnection = func(c tls.ConnectionState) error {
		g.handshakes.Add(1)
		if c.DidResume {
			g.resumed.Add(1)
		}
		return nil
	}
	if l.resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(l.protocol == "http/1.1")
	protocols.SetHTTP2(l.protocol == "h2")
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		},
		TLSClientConfig: config, Protocols: protocols, DisableKeepAlives: l.fresh, DisableCompression: true, MaxConnsPerHost: 1,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}}
}

func (g *generator) close() {
	for _, c := range g.clients {
		c.CloseIdleConnections()
	}
}

// run makes requests for a time and returns how long each took, in ascending order.
func (g *generator) run(ctx context.Context, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		first error
	)
	end := time.Now().Add(d)
	for _, c := range g.clients {
		for range g.streams {
			wg.Go(func() {
				var mine []time.Duration
				var err error
				for err == nil && time.Now().Before(end) {
					begin := time.Now()
					if err = g.request(ctx, c); err == nil {
						mine = append(mine, time.Since(begin))
					}
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, mine...)
				if err != nil && first == nil {
					first = err
					cancel()
				}
			})
		}
	}
	wg.Wait()
	slices.Sort(all)
	return all, first
}

// each makes one request on each connection.
func (g *generator) each(ctx context.Context) error {
	for _, c := range g.clients {
		if err := g.request(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) request(ctx context.Context, c *http.Client) error {
	method, body := http.MethodGet, io.Reader(nil)
	if len(g.body) > 0 {
		method, body = http.MethodPost, bytes.NewReader(g.body)
	}
	r, err := http.NewRequestWithContext(ctx, method, g.url, body)
	if err != nil {
		return err
	}
	res, err := c.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && n != res.ContentLength {
		return fmt.Errorf("%d bytes of %d", n, res.ContentLength)
	}
	return err
}

// quantile expects ascending times, at least one.
func quantile(times []time.Duration, q float64) time.Duration {
	return times[min(len(times)-1, int(q*float64(len(times))))]
}
