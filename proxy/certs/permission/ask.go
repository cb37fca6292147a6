package permission

import (
	"cmp"
	"context"
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
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/memo"
)

const (
	askTimeout  = 2 * time.Second
	askAllowTTL = 10 * time.Minute
	askDenyTTL  = time.Minute
	askErrorTTL = time.Second // so that a broken endpoint is asked once a second for each name
	askStale    = 7 * 24 * time.Hour
	askLongest  = 24 * time.Hour  // that a Cache-Control is believed
	askParallel = 32              // requests at a time
	askMemory   = 1 << 17         // answers, about 250 bytes each
	askBody     = int64(64 << 10) // bytes read of an answer; a longer JSON object is a broken one
)

// AskConfig describes the endpoint that decides about on-demand names.
type AskConfig struct {
	// URL is asked with GET and the query name=, ip= (of the client) and node=. Required, http or https.
	URL string

	// Node names this process to the endpoint; may be empty.
	Node string

	// Timeout bounds a request. Zero means 2 s.
	Timeout time.Duration

	// Logger gets a line when the endpoint begins to fail and one when it works again. Nil: none.
	Logger *zap.Logger

	// Metrics may be nil.
	Metrics AskMetrics

	// AllowTTL and DenyTTL are how long answers hold that carry no Cache-Control. Zero means 10 m and 1 m.
	AllowTTL, DenyTTL time.Duration

	// StaleIfError is how long the last answer goes on allowing a name while the endpoint cannot tell. Zero means 7 d; below zero, not at all.
	StaleIfError time.Duration
}

// AskMetrics hears of every request to the endpoint: its result, "allowed", "denied" or "failed", and how long it took, with the wait for a place. It returns at once.
type AskMetrics interface {
	Asked(result string, took time.Duration)
}

type noMetrics struct{}

func (noMetrics) Asked(string, time.Duration) {}

// Ask asks an HTTP endpoint: 200 allows, 404 and 403 deny, everything else, and a 200 with a broken JSON object, cannot tell. It never follows redirects. Answers are
// kept for as long as their Cache-Control (max-age, no-store) or else the configuration says, and a name has one request under way at a time.
type Ask struct {
	cfg     AskConfig
	client  *http.Client
	answers *memo.Memo[string, Answer]
	places  chan struct{} // one element for each request under way

	failing atomic.Pointer[outage] // nil if the last request got a verdict

	// changed is told when a name's tenant or upstream is another than before; nil before a Manager took the Ask into use.
	changed atomic.Pointer[func(ctx context.Context, name string, a Answer)]

	ctx  context.Context // of the refreshes, which Close ends and waits for
	stop context.CancelFunc
	own  sync.WaitGroup

	mu      sync.Mutex // guards flights, and own against Close
	flights map[string]*askFlight
}

type askFlight struct {
	done   chan struct{} // closed when answer is final
	answer Answer
}

// NewAsk checks the configuration. Nothing is asked yet.
func NewAsk(cfg AskConfig) (*Ask, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("ask URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("ask URL %q: write it as http://HOST/PATH or https://HOST/PATH", cfg.URL)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = noMetrics{}
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, askTimeout)
	cfg.AllowTTL = cmp.Or(cfg.AllowTTL, askAllowTTL)
	cfg.DenyTTL = cmp.Or(cfg.DenyTTL, askDenyTTL)
	cfg.StaleIfError = cmp.Or(cfg.StaleIfError, askStale)
	ctx, stop := context.WithCancel(context.Background())
	return &Ask{
		cfg: cfg, ctx: ctx, stop: stop,
		client: &http.Client{
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
				MaxIdleConnsPerHost: askParallel, IdleConnTimeout: 90 * time.Second,
				ForceAttemptHTTP2: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		answers: memo.New[string, Answer](askMemory),
		places:  make(chan struct{}, askParallel),
		flights: map[string]*askFlight{},
	}, nil
}

// Close ends what is asked in the background and drops idle connections.
func (a *Ask) Close() {
	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.own.Wait()
	a.client.CloseIdleConnections()
}

// Known reports what the endpoint said of the name, if that can be taken without asking.
func (a *Ask) Known(name string) (allowed, known bool) {
	answer, ok := a.answers.Get(name)
	return answer.Allowed, ok && answer.holds(time.Now())
}

// Allow asks for the name, unless what is remembered holds. The error wraps ErrDenied if the endpoint refuses; any other says that it cannot tell.
func (a *Ask) Allow(ctx context.Context, name string, client netip.Addr) error {
	answer, err := a.say(ctx, name, client)
	if err != nil {
		return err
	}
	return a.verdict(name, answer)
}

// Say returns what the endpoint says of the name: what is remembered, however old (see Answer), else what it answers now. It takes no longer than AskConfig.Timeout, and goes on when ctx ends: a client
// that leaves must not make others believe that the endpoint cannot tell.
func (a *Ask) Say(ctx context.Context, name string) (Answer, error) {
	if answer, ok := a.Answer(name); ok {
		return answer, nil
	}
	answer, err := a.say(context.WithoutCancel(ctx), name, netip.Addr{})
	if err == nil {
		err = answer.err
	}
	return answer, err
}

// say returns an error where the answer did not come in time. An answer that there was none is an Answer too.
func (a *Ask) say(ctx context.Context, name string, client netip.Addr) (Answer, error) {
	if answer, ok := a.answers.Get(name); ok && time.Now().Before(answer.fresh) {
		return answer, nil
	}
	f, mine := a.flight(name)
	if mine { // the first caller's own goroutine asks; its context is that of a flight of the Manager's
		a.fly(ctx, name, client, f)
	}
	select {
	case <-f.done:
		return f.answer, nil
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// flight returns the request under way for the name; mine if there was none, and the caller is to fly it.
func (a *Ask) flight(name string) (f *askFlight, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, flying := a.flights[name]
	if !flying {
		f = &askFlight{done: make(chan struct{})}
		a.flights[name] = f
	}
	return f, !flying
}

// fly asks for all who wait.
func (a *Ask) fly(ctx context.Context, name string, client netip.Addr, f *askFlight) {
	f.answer = a.askOnce(ctx, name, client)
	a.mu.Lock()
	delete(a.flights, name)
	a.mu.Unlock()
	close(f.done)
}

func (a *Ask) verdict(name string, v Answer) error {
	switch {
	case v.err != nil && v.Allowed && time.Since(v.Asked) < a.cfg.StaleIfError:
		return nil
	case v.err != nil:
		return v.err
	case !v.Allowed:
		return fmt.Errorf("%w: %s", ErrDenied, name)
	}
	return nil
}

// askOnce sends the request and remembers the answer. Where the endpoint cannot tell, what it said before is still known.
func (a *Ask) askOnce(ctx context.Context, name string, client netip.Addr) Answer {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	before, known := a.answers.Get(name)
	if known && time.Now().Before(before.fresh) { // another flight has just landed
		return before
	}
	began := time.Now()
	answer, ttl := a.request(ctx, name, client)
	now := time.Now()
	a.cfg.Metrics.Asked(answer.result(), now.Sub(began))
	a.watch(answer.err)
	if answer.err != nil && known {
		answer.Allowed, answer.Tenant, answer.To, answer.Asked = before.Allowed, before.Tenant, before.To, before.Asked
	} else if answer.err == nil {
		answer.Asked = now
	}
	answer.fresh = now.Add(ttl)
	if ttl > 0 || answer.Allowed {
		a.answers.Put(name, answer, now.Add(max(ttl, a.keeps(answer))))
	} else {
		a.answers.Forget(name) // what it allowed before is over
	}
	if known && answer.err == nil && answer.Allowed && (answer.Tenant != before.Tenant || answer.To != before.To) {
		if changed := a.changed.Load(); changed != nil {
			(*changed)(ctx, name, answer)
		}
	}
	return answer
}

// keeps is how long an answer is known beyond the time for which it holds: so that requests find their way, and for StaleIfError.
func (a *Ask) keeps(v Answer) time.Duration {
	if !v.Allowed {
		return 0
	}
	return max(a.cfg.StaleIfError, askStale)
}

// watch tells the operator, once, that new names are refused because nobody answers for them.
func (a *Ask) watch(err error) {
	before := a.failing.Load()
	switch {
	case err == nil && a.failing.Swap(nil) != nil:
		a.cfg.Logger.Info("the ask endpoint works again")
	case err == nil:
	case before != nil:
		a.failing.CompareAndSwap(before, &outage{before.since, err}) // who was faster has as good a reason
	case a.failing.CompareAndSwap(nil, &outage{time.Now(), err}):
		a.cfg.Logger.Warn("names without a certificate are refused: the ask endpoint fails", zap.Error(err))
	}
}

func (a *Ask) request(ctx context.Context, name string, client netip.Addr) (Answer, time.Duration) {
	cannotTell := func(err error) (Answer, time.Duration) {
		return Answer{err: fmt.Errorf("the ask endpoint cannot tell: %w", err)}, askErrorTTL
	}
	select {
	case a.places <- struct{}{}:
		defer func() { <-a.places }()
	case <-ctx.Done():
		return cannotTell(errors.New("too many requests to it are under way"))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url(name, client), nil)
	if err != nil {
		return cannotTell(err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) { // it names the whole URL, whose query may have a secret of the operator's
			err = u.Err
		}
		return cannotTell(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, askBody))
	switch resp.StatusCode {
	case http.StatusOK:
		if err != nil {
			return cannotTell(err)
		}
		answer, err := allowedBy(body)
		if err != nil {
			return cannotTell(err)
		}
		return answer, ttlOf(resp.Header, a.cfg.AllowTTL)
	case http.StatusNotFound, http.StatusForbidden:
		return Answer{}, ttlOf(resp.Header, a.cfg.DenyTTL)
	}
	return cannotTell(fmt.Errorf("it answered %s", resp.Status))
}

// url is the configured URL with our three parameters, whatever its query has besides.
func (a *Ask) url(name string, client netip.Addr) string {
	u, err := url.Parse(a.cfg.URL)
	if err != nil {
		return a.cfg.URL // cannot happen: NewAsk parsed it
	}
	q := u.Query()
	q.Set("name", name)
	q.Set("node", a.cfg.Node)
	if client.IsValid() {
		q.Set("ip", client.String())
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// ttlOf reads Cache-Control (RFC 9111 §5.2.2). No-store and no-cache mean that the next handshake asks again.
func ttlOf(h http.Header, otherwise time.Duration) time.Duration {
	ttl := otherwise
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(key) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err == nil {
				ttl = min(time.Duration(seconds)*time.Second, askLongest)
			}
		}
	}
	return ttl
}
