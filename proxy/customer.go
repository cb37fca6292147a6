package proxy

import (
	"container/list"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"gatelodge/proxy/upstream"
)

// Customer is what was said about a name when it was permitted to be served on demand.
type Customer struct {
	Tenant string // whose name it is; empty if nobody said
	To     string // where its requests go, a URL of scheme, host and port; empty for the site's own upstream
}

// Upstream is where requests go. Close lets those under way end.
type Upstream interface {
	http.RoundTripper
	io.Closer
}

// Limits of the upstreams that names bring with them.
const (
	maxCustomerPools  = 4096
	customerPoolsIdle = 10 * time.Minute
)

// customer is what was said about the host; the zero Customer if nothing was.
func (x *exchange) customer() Customer {
	if x.state.Customers == nil || x.site == nil || !x.site.OnDemand {
		return Customer{}
	}
	if x.whose == nil {
		c, _ := x.state.Customers(x.r.Context(), x.host)
		x.whose = &c
	}
	return *x.whose
}

// customerUpstream is the upstream that the host's customer has, nil for none.
func (x *exchange) customerUpstream() http.RoundTripper {
	if x.state.Customers == nil || x.state.OpenUpstream == nil || !x.site.OnDemand {
		return nil
	}
	to := x.customer().To
	if to == "" {
		return nil
	}
	u, err := x.srv.customers.get(to, x.state.OpenUpstream)
	if err != nil {
		return noUpstream{to, err}
	}
	return u
}

// noUpstream stands for a customer's upstream that cannot be.
type noUpstream struct {
	to  string
	err error
}

func (n noUpstream) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &upstream.Error{Target: n.to, Class: upstream.ErrConnect, Err: n.err}
}

// customerPools are the upstreams of customers by their address, the most recently used in front. They live across reloads.
type customerPools struct {
	mu     sync.Mutex // guards what follows; never held while an upstream is closed
	by     map[string]*list.Element
	recent list.List // of *customerPool
}

type customerPool struct {
	to   string
	used time.Time
	Upstream
}

// get returns the upstream of the address, opened if need be.
func (c *customerPools) get(to string, open func(to string) (Upstream, error)) (Upstream, error) {
	c.mu.Lock()
	if e, ok := c.by[to]; ok {
		defer c.mu.Unlock()
		c.recent.MoveToFront(e)
		p := e.Value.(*customerPool)
		p.used = time.Now()
		return p.Upstream, nil
	}
	u, err := open(to) // makes no connection yet
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	if c.by == nil {
		c.by = map[string]*list.Element{}
	}
	c.by[to] = c.recent.PushFront(&customerPool{to: to, used: time.Now(), Upstream: u})
	closing := c.dropLocked(func(*customerPool) bool { return c.recent.Len() > maxCustomerPools })
	c.mu.Unlock()
	closeAll(closing)
	return u, nil
}

// dropLocked takes out the least recently used as long as due says so.
func (c *customerPools) dropLocked(due func(*customerPool) bool) (dropped []Upstream) {
	for e := c.recent.Back(); e != nil && due(e.Value.(*customerPool)); e = c.recent.Back() {
		p := c.recent.Remove(e).(*customerPool)
		delete(c.by, p.to)
		dropped = append(dropped, p.Upstream)
	}
	return dropped
}

// tend closes what nobody uses, until ctx ends.
func (c *customerPools) tend(ctx context.Context) {
	tick := time.NewTicker(customerPoolsIdle / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.drop(func(p *customerPool) bool { return now.Sub(p.used) > customerPoolsIdle })
		}
	}
}

// close closes all of them, when there are no more requests.
func (c *customerPools) close() { c.drop(func(*customerPool) bool { return true }) }

func (c *customerPools) drop(due func(*customerPool) bool) {
	c.mu.Lock()
	closing := c.dropLocked(due)
	c.mu.Unlock()
	closeAll(closing)
}

// len is how many there are.
func (c *customerPools) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len()
}

func closeAll(us []Upstream) {
	for _, u := range us {
		_ = u.Close()
	}
}
