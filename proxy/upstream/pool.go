package upstream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Pool brings requests to its targets over connections that it keeps. It is safe for concurrent use.
type Pool struct {
	cfg     Config
	balance Balance
	log     *zap.Logger
	groups  []*group // in the order of the configuration
	named   bool     // some target's addresses may change

	members atomic.Pointer[[]*endpoint] // replaced, never modified; readers need no lock
	turn    turns                       // of round robin
	budget  budget
	retried atomic.Uint64
	closed  atomic.Bool

	mu      sync.Mutex // guards waiting and the groups' endpoints; never held during I/O
	waiting list.List  // of *waiter, in the order in which they came

	life  sync.Mutex // guards the start of goroutines against Close
	work  sync.WaitGroup
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	begin sync.Once
}

var _ http.RoundTripper = (*Pool)(nil)

// New returns a pool that has no connections yet. All that is wrong with the configuration is in the error.
func New(cfg Config) (*Pool, error) {
	cfg = cfg.withDefaults()
	targets, err := cfg.targets()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: cfg.Logger}
	if cfg.Name != "" {
		p.log = p.log.With(zap.String("pool", cfg.Name))
	}
	if p.balance, err = ParseBalance(cfg.Balance); err != nil {
		return nil, err
	}
	if cfg.Sticky != "" && !isToken(cfg.Sticky) {
		return nil, fmt.Errorf("upstream: %q is no name of a cookie", cfg.Sticky)
	}
	if err := cfg.Retries.check(); err != nil {
		return nil, err
	}
	if cfg.Retries.Budget > 0 {
		p.budget.saved.Store(reserve)
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for i, t := range targets {
		g := p.newGroup(t, cfg.weight(i))
		g.named = g.named && cfg.ResolveEvery > 0
		p.named = p.named || g.named
		p.groups = append(p.groups, g)
	}
	p.collect()
	return p, nil
}

// Start begins the probes, if there are any. It does nothing the second time, nor after Close.
func (p *Pool) Start() {
	p.begin.Do(func() {
		if p.cfg.Health.Path != "" {
			p.goOn(p.probeAll)
		}
	})
}

// goOn runs f in a goroutine that Close waits for.
func (p *Pool) goOn(f func(context.Context)) {
	p.life.Lock()
	defer p.life.Unlock()
	if !p.closed.Load() {
		p.work.Go(func() { f(p.ctx) })
	}
}

// String returns the targets, for logs.
func (p *Pool) String() string {
	var all []string
	for _, g := range p.groups {
		all = append(all, g.target.String())
	}
	return strings.Join(all, " ")
}

// journey is one request on its way to a target.
type journey struct {
	r     *http.Request
	call  *Call
	had   []*endpoint   // that failed it
	body  io.ReadCloser // to send instead of r.Body; nil for that
	trial bool          // it tries whether a breaker can be closed

	first attempt // in here since most have no other
}

// attempt is the request as one endpoint gets it. The transport may keep it for a while.
type attempt struct {
	http.Request
	url url.URL
}

func (j *journey) tried(e *endpoint) bool { return slices.Contains(j.had, e) }

// RoundTrip sends r to a target, whatever scheme and host r.URL names; r.Host goes there as it is. All its errors are of type *Error. Nothing is sent twice
// but what [Retries] says, and requests without a body that are idempotent, or of which no byte was written (RFC 9110 §9.2.2), on another connection to the
// same target.
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	j := &journey{}
	j.r, j.call = withCall(r)
	j.call.method = r.Method
	if p.named {
		p.refresh(time.Now())
	}
	if p.cfg.Retries.Max > 0 {
		p.budget.deposit(p.cfg.Retries.Budget)
	}
	e, none := p.acquire(j)
	if none != nil {
		return nil, p.unavailable(r.Context(), none)
	}
	for {
		res, err := p.try(j, e)
		other := p.next(j, e, res, err)
		switch {
		case other != nil:
			if res != nil {
				_ = res.Body.Close()
			}
			e = other
		case err != nil:
			return nil, err
		default:
			p.stick(j, e, res)
			return res, nil
		}
	}
}

// unavailable is the error for a request that had no target.
func (p *Pool) unavailable(ctx context.Context, cause error) *Error {
	class := ErrUnavailable
	if ctx.Err() != nil {
		class = ErrCanceled
	}
	return &Error{Target: p.String(), Class: class, Err: cause}
}

// try sends the request to the endpoint. Either there is an error, and the request has left the endpoint, or it leaves it with the end of the answer's body.
func (p *Pool) try(j *journey, e *endpoint) (*http.Response, *Error) {
	out := &j.first
	if len(j.had) > 0 {
		out = &attempt{}
	}
	out.Request, out.url = *j.r, *j.r.URL
	out.url.Scheme, out.url.Host = e.scheme, e.host
	out.URL = &out.url
	out.Close = p.closed.Load() || e.retired.Load()
	if j.body != nil {
		out.Body = j.body
	}
	transport, h2c := e.main, e.target.Scheme == "h2c"
	if j.r.Header["Upgrade"] != nil {
		transport, h2c = e.upgrade, false
	}
	j.call.Target, j.call.conn = e.label, nil
	e.requests.Add(1)
	res, err := transport.RoundTrip(&out.Request)
	if err == nil {
		overH2 := h2c || res.TLS != nil && res.TLS.NegotiatedProtocol == "h2"
		if err = check(j.r, res, overH2); err == nil {
			p.worked(e, j)
			p.follow(j.r, e, res)
			return res, nil
		}
		_ = res.Body.Close()
		if conn := j.call.conn; conn != nil && !overH2 {
			_ = conn.Close() // nobody knows what else will come over it
		}
		err = protocolError{err}
	}
	failure := newError(j.r, e, err)
	p.failed(e, j, failure)
	p.release(e)
	return nil, failure
}

// check refuses answers that http.Transport lets through and that would confuse whoever reads them next.
func check(r *http.Request, res *http.Response, overH2 bool) error {
	if !overH2 && res.ProtoMajor != 1 {
		return fmt.Errorf("status line says %s on an HTTP/1.1 connection", res.Proto)
	}
	if res.StatusCode == http.StatusSwitchingProtocols && r.Header["Upgrade"] == nil {
		return errors.New("101 Switching Protocols without being asked")
	}
	if res.StatusCode < 101 || res.StatusCode > 599 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// follow keeps the request at the endpoint until the answer's body has ended, and makes errors while reading it of the same kind as those before it.
func (p *Pool) follow(r *http.Request, e *endpoint, res *http.Response) {
	if res.Body == http.NoBody {
		p.release(e)
		return
	}
	if c, ok := res.Body.(io.ReadWriteCloser); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &tunnel{ReadWriteCloser: c, pool: p, e: e}
		return
	}
	res.Body = &body{ReadCloser: res.Body, r: r, pool: p, e: e}
}

// body is the body of an answer.
type body struct {
	io.ReadCloser
	r    *http.Request
	pool *Pool
	e    *endpoint
	left atomic.Bool // the request has left the endpoint
}

func (b *body) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	switch {
	case err == nil:
	case err == io.EOF:
		b.leave()
	default:
		failure := newError(b.r, b.e, err)
		if !b.left.Load() {
			b.pool.failed(b.e, &journey{r: b.r}, failure)
		}
		b.leave()
		err = failure
	}
	return n, err
}

func (b *body) Close() error {
	defer b.leave()
	return b.ReadCloser.Close()
}

func (b *body) leave() {
	if b.left.CompareAndSwap(false, true) {
		b.pool.release(b.e)
	}
}

// tunnel is the connection of an upgraded request, which counts as one as long as it is open.
type tunnel struct {
	io.ReadWriteCloser
	pool *Pool
	e    *endpoint
	left atomic.Bool
}

// CloseWrite closes our side of it alone, if that is possible.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (t *tunnel) Close() error {
	err := t.ReadWriteCloser.Close()
	if t.left.CompareAndSwap(false, true) {
		t.pool.release(t.e)
	}
	return err
}

// Close ends the probes and closes the connections that are not in use. Requests that began before a reload may still use the Pool, and those under way end
// undisturbed; their connections close behind them.
func (p *Pool) Close() error {
	p.life.Lock()
	p.closed.Store(true)
	p.life.Unlock()
	p.stop()
	p.work.Wait()
	for _, e := range *p.members.Load() {
		e.retire()
	}
	return nil
}
