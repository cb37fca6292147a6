package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Client talks to one CA. It owns what concerns the CA: protocol, account, nonces, limits, orders in progress. What concerns a name (its key, its
// failures, when to try again) is the caller's. All methods are safe for concurrent use.
type Client struct {
	cfg  Config
	log  *zap.Logger
	wire *wire

	negotiator *negotiator
	accounts   accounts
	limits     limitBook
	orders     *orderBook
	strays     strays
	rotation   rotation
	pace       pace

	background sync.WaitGroup // what Start began

	// mu guards what follows.
	mu      sync.Mutex
	closed  bool
	stop    context.CancelFunc // ends the background; nil before Start
	lastErr error              // of the last operation that failed
	lastAt  time.Time          // when
}

// New makes a Client. It asks nothing of the CA yet and starts no goroutine; a fault of the Config is an error, all faults in one.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("CA %q: %w", cfg.Name, err)
	}
	log := cfg.Logger.Named("acme").With(zap.String("ca", cfg.Name))
	c := &Client{
		cfg:      cfg,
		log:      log,
		wire:     newWire(&cfg),
		accounts: accounts{turn: make(chan struct{}, 1)},
		limits:   limitBook{ca: cfg.Name, store: cfg.Store, log: log},
		orders:   newOrderBook(cfg.Name, cfg.Store, log),
		strays:   newStrays(),
		rotation: rotation{failed: map[string]string{}},
		pace:     defaultPace(),
	}
	c.negotiator = newNegotiator(&c.cfg, c.wire, log)
	c.negotiator.forgive = c.limits.forgive
	c.negotiator.spokeV2 = c.knownOverV2
	c.negotiator.join = func(ctx context.Context, dir *directory) error {
		acct, err := c.account(ctx, c.v2(dir))
		if err == nil && acct.V1 != nil && acct.V1.URL != acct.URL {
			c.log.Warn("the account has another URL over ACME v2: CAA and DNS records that name the old one need a change",
				zap.String("old_account", acct.V1.URL), zap.String("account", acct.URL))
		}
		return err
	}
	return c, nil
}

// Start negotiates with the CA and keeps what was negotiated and the CA's directory up to date, in the background, until ctx ends or Close. It returns at once.
// Without it, Obtain does what is needed when it is needed, and nobody asks a CA on v1 for v2.
func (c *Client) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if c.stop != nil {
		return fmt.Errorf("start the client of %s: it was started before", c.cfg.Name)
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.background.Go(func() { c.negotiator.watch(ctx) })
	return nil
}

// Close ends what Start began, waits for it, and drops the connections to the CA. Whoever still waits in Obtain is served first by the end of its own context.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	stop := c.stop
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
	c.background.Wait()
	c.wire.close()
	return nil
}

// Account returns the account at the CA and makes it if there is none, so that a program can do so at its start and not in the first handshake.
func (c *Client) Account(ctx context.Context) (*Account, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	d, acct, err := c.dialect(ctx)
	if err != nil {
		return nil, c.failed(ctx, err, nil)
	}
	return &Account{URL: acct.at(d.protocol()), Contact: acct.Contact, Created: acct.Created}, nil
}

// Status is what a person wants to know of a CA. It asks the CA nothing.
type Status struct {
	Name        string
	Directory   string
	DirectoryV1 string   // empty: there is none beside
	Protocol    Protocol // what is spoken with the CA now; empty: nothing, or nothing yet, see Negotiation
	Negotiation Negotiation
	Account     string    // its URL over Protocol; empty: not needed yet
	LastError   string    // of the last operation that failed; empty: none since the start
	LastErrorAt time.Time // zero without LastError
	Limits      []Limit   // that hold now
}

// Refresh reads what the fleet knows of the CA's protocol, if this node last did five minutes ago or more, so that Status tells what another node saw. Where the
// store does not answer, Status tells what this node knows.
func (c *Client) Refresh(ctx context.Context) { _, _ = c.negotiator.current(ctx) }

// Status returns the present state.
func (c *Client) Status() Status {
	s := Status{Name: c.cfg.Name, Directory: c.cfg.Directory, DirectoryV1: c.cfg.DirectoryV1, Limits: c.limits.list(time.Now())}
	s.Protocol, s.Negotiation = c.negotiator.status()
	if acct := c.accounts.get(); acct != nil && s.Protocol != "" {
		s.Account = acct.at(s.Protocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastErr != nil {
		s.LastError, s.LastErrorAt = c.lastErr.Error(), c.lastAt
	}
	return s
}

func (c *Client) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return nil
}

// failed completes the error of an operation for the sorted names, remembers it and what it says about the CA, and returns it.
func (c *Client) failed(ctx context.Context, err error, names []string) error {
	var p *Problem
	if errors.As(err, &p) {
		if p.CA == "" {
			p.CA = c.cfg.Name
		}
		if p.Identifier == "" && p.scope == ScopeName && len(names) == 1 {
			p.Identifier = names[0]
		}
		c.limits.note(ctx, p, names)
	}
	if errors.Is(err, context.Canceled) {
		return err // our side gave up
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr, c.lastAt = err, time.Now()
	return err
}
