package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// negotiator looks at the CA's directories, lets the negotiation decide what they mean (negotiation.go), remembers it for the fleet and does what it says.
type negotiator struct {
	ca                     string
	directory, directoryV1 string // URLs; the latter is empty if there is none
	rules                  rules
	wire                   *wire
	store                  storage.Store
	log                    *zap.Logger
	metrics                NegotiationMetrics

	// join makes the account known over v2, with the key that it has over v1.
	join func(context.Context, *directory) error

	// spokeV2 reports whether the account is known over v2. An account that cannot be read may be.
	spokeV2 func(context.Context) (bool, error)

	// forgive forgets what the CA has refused in the scope.
	forgive func(scope string)

	hurried chan struct{} // holds one: somebody wants the background to look now
	changed chan struct{} // holds one: the background is to reckon anew when to look

	// mu guards what follows; never held during I/O.
	mu        sync.Mutex
	known     negotiation
	readAt    time.Time // when known was read or written; zero: never
	nextLook  time.Time // of the background
	hurriedAt time.Time // when hurry last made it look
	uses      int       // orders over v1
	warned    time.Time // when they were last logged
}

func newNegotiator(cfg *Config, w *wire, log *zap.Logger) *negotiator {
	g := &negotiator{
		ca: cfg.Name, directory: cfg.Directory, directoryV1: cfg.DirectoryV1, rules: rules{protocol: cfg.Protocol, v1Address: cfg.DirectoryV1 != ""},
		wire: w, store: cfg.Store, log: log, metrics: noNegotiationMetrics{}, hurried: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
	if m, ok := cfg.Metrics.(NegotiationMetrics); ok {
		g.metrics = m
	}
	return g
}

// address returns the URL of a place.
func (g *negotiator) address(at place) string {
	if at == atDirectoryV1 {
		return g.directoryV1
	}
	return g.directory
}

// settle returns which protocol to speak now, and its directory. It asks the CA only if nothing is known or the v2 directory is too old: in a program that
// has called Client.Start, the background has done both.
func (g *negotiator) settle(ctx context.Context) (Protocol, *directory, error) {
	n, err := g.current(ctx)
	if err != nil {
		return "", nil, err
	}
	if n.State != stateSuspected || g.rules.protocol == ProtocolV1 {
		if p := n.speaks(g.rules); p == "" || p == ProtocolV2 && g.wire.directory.fresh(time.Now()) == nil {
			n, err = g.lookInTurn(ctx, g.rules)
		}
	}
	return g.spoken(n, err)
}

// spoken returns what is spoken after a look, or why nothing is; err is why the look was no good.
func (g *negotiator) spoken(n negotiation, err error) (Protocol, *directory, error) {
	switch p := n.speaks(g.rules); {
	case p == ProtocolV1:
		return p, n.V1.directory(), nil
	case p == ProtocolV2:
		dir, cacheErr := g.wire.directory.usable(time.Now())
		if dir != nil {
			return p, dir, nil
		}
		if err == nil {
			err = cacheErr
		}
		if err == nil {
			err = fmt.Errorf("the directory of %s was forgotten meanwhile", g.ca) // by a reset of another node; the next call begins anew
		}
		return "", nil, err
	case n.State != stateSuspected && err != nil:
		return "", nil, err
	}
	return "", nil, g.unspoken(n)
}

// former returns the directory of v1 after an upgrade, for what was begun before it; nil if there was none.
func (g *negotiator) former(p Protocol) *directory {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p != ProtocolV1 || !g.rules.allowsV1() || g.known.State != stateV2 || g.known.V1 == nil {
		return nil
	}
	return g.known.V1.directory()
}

// directory returns the stored v1 directory as one.
func (v *v1Directory) directory() *directory {
	return &directory{url: v.URL, endpoints: v.Endpoints, terms: v.Terms, caa: v.CAA}
}

// downgraded is the Problem of every operation while a downgrade is suspected. Nothing is sent.
func (g *negotiator) downgraded(n negotiation) error {
	before := "the CA spoke ACME v2 until " + n.V2Seen.UTC().Format(time.RFC3339)
	if n.V2Seen.IsZero() { // see assumedV2
		before = "what was known of the CA was damaged or lost, and it may have spoken ACME v2"
	}
	return &Problem{
		CA: g.ca, Op: "negotiate", scope: ScopeCA,
		Detail: fmt.Sprintf("%s, then %s", before, clean(n.Evidence)),
		Advice: fmt.Sprintf("nothing is sent to it: find out whether that is really the CA; if it is right, `gatelodge acme reset %s` begins anew", g.ca),
	}
}

// unspoken is the Problem of a CA that shows nothing that may be spoken.
func (g *negotiator) unspoken(n negotiation) error {
	if n.State == stateSuspected {
		return g.downgraded(n)
	}
	p := &Problem{CA: g.ca, Op: "negotiate", scope: ScopeCA, Detail: clean(n.Trouble)}
	if g.rules.protocol == ProtocolV1 {
		p.Advice = "`acme_version` is \"1\": give the CA's v1 directory in `directory_v1`, or allow v2"
	} else {
		p.Advice = "give the CA's v2 directory in `directory`, or allow v1 by `acme_version = \"auto\"`"
	}
	return p
}

// lookInTurn looks at the CA unless somebody else has just done so.
func (g *negotiator) lookInTurn(ctx context.Context, r rules) (negotiation, error) {
	c := &g.wire.directory
	waiting := time.Now()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return negotiation{}, fmt.Errorf("wait for the directory of %s: %w", g.ca, ctx.Err())
	}
	n, err := g.current(ctx)
	if err != nil {
		return n, err
	}
	if !r.asked {
		if p := n.speaks(r); p == ProtocolV1 || p == ProtocolV2 && c.fresh(time.Now()) != nil {
			return n, nil
		}
		if err := c.failedSince(waiting); err != nil {
			return n, err
		}
	}
	return g.lookAround(ctx, n, r)
}

// maxLooks bounds the looks of one negotiation.
const maxLooks = 6

// lookAround looks wherever what is known leads. It is called in turn. The error says why the last look was no good; what is known may be good all the same.
func (g *negotiator) lookAround(ctx context.Context, n negotiation, r rules) (negotiation, error) {
	asked := time.Now()
	queue := n.places(r)
	var failed error
	for range maxLooks {
		if len(queue) == 0 {
			break
		}
		at := queue[0]
		queue = queue[1:]
		s, dir, problem := g.look(ctx, at)
		if problem != nil && ctx.Err() != nil {
			return n, problem // our caller gave up: that says nothing about the CA
		}
		var act action
		var err error
		if n, act, err = g.decide(ctx, s, r); err != nil {
			return n, err
		}
		if n.speaks(r) == ProtocolV2 && at == n.V2At {
			_, _ = g.wire.directory.update(dir, problem, asked, time.Now())
		}
		failed = problem
		switch act {
		case goOn:
			failed = nil
		case lookAgain:
			if n.State == stateV2 && !r.asked { // what is known is good for a week; the background comes back
				break
			}
			if sleep(ctx, absencePause) != nil {
				return n, problem
			}
			queue = slices.Insert(queue, 0, at)
		case lookAtV1:
			queue = append(queue, atDirectoryV1)
		case confirm:
			if failed = nil; r.asked {
				queue = slices.Insert(queue, 0, at)
			}
		case moveUp:
			if n, failed = g.moveUp(ctx, n, s, dir); failed == nil {
				_, _ = g.wire.directory.update(dir, nil, asked, time.Now())
			}
		}
	}
	if n.speaks(r) == "" {
		if failed == nil {
			failed = g.unspoken(n)
		}
		_, _ = g.wire.directory.update(nil, failed, asked, time.Now()) // for whoever waited for this look
	}
	return n, g.scheduled(ctx, n, failed)
}

// decide lets the negotiation judge a sight, and stores and tells what has changed.
func (g *negotiator) decide(ctx context.Context, s sight, r rules) (negotiation, action, error) {
	var act action
	now := time.Now().UTC()
	before, after, err := g.change(ctx, func(n negotiation) negotiation {
		n, act = n.next(s, r, now)
		return n
	})
	if err != nil {
		if after.State != stateSuspected && (after.State != before.State || before.State == stateUnknown) {
			return before, giveUp, err // a change that nobody would remember has not happened
		}
		g.keep(after)
		g.log.Warn("what was seen of the CA could not be stored", zap.Error(err))
	}
	if s.class == sawV2 && r.protocol == ProtocolV1 {
		g.metrics.V2Refused(g.ca)
		g.log.Warn("the CA offers ACME v2, but acme_version is \"1\"", zap.String("directory", g.address(s.place)))
	}
	if before.State != after.State {
		g.tell(before, after)
	}
	return after, act, nil
}

// tell logs and counts a change.
func (g *negotiator) tell(before, after negotiation) {
	g.metrics.Transition(g.ca, before.State.String(), after.State.String())
	fields := []zap.Field{zap.String("before", before.State.String()), zap.String("evidence", after.Evidence)}
	switch after.State {
	case stateSuspected:
		g.metrics.DowngradeSuspected(g.ca)
		g.log.Error("the CA no longer shows ACME v2: a downgrade is suspected, and nothing is sent to it until v2 is back or an operator resets it", fields...)
	case stateV1:
		g.log.Warn("the CA speaks ACME v1, which is deprecated; it is asked for v2 daily", fields...)
	case stateUpgrading:
		g.log.Info("the CA offers ACME v2 now; it is confirmed before it is used", fields...)
	default:
		g.log.Info("the CA speaks ACME v2", fields...)
	}
}

// moveUp makes the account known over v2 and enters v2. If it fails, v1 is spoken on.
func (g *negotiator) moveUp(ctx context.Context, n negotiation, s sight, dir *directory) (negotiation, error) {
	if err := g.join(ctx, dir); err != nil {
		g.log.Warn("the CA offers ACME v2, but does not take the account there; v1 is used on", zap.Error(err))
		_, after, storeErr := g.change(ctx, func(n negotiation) negotiation {
			n.Trouble = "v2 does not take the account: " + clean(err.Error())
			return n
		})
		return after, errors.Join(err, storeErr)
	}
	now := time.Now().UTC()
	before, after, err := g.change(ctx, func(n negotiation) negotiation {
		if n.State != stateUpgrading { // another node, or a person, was first
			return n
		}
		return n.movedUp(s, now)
	})
	if err != nil {
		return n, err
	}
	if before.State != after.State {
		g.tell(before, after)
	}
	return after, nil
}

// The next probe of a CA on v1 is a day later, give or take a fifth, so that CAs and fleets do not meet at an hour.
const probeInterval = 24 * time.Hour

// scheduled sets when the fleet asks a CA on v1 for v2 again, and passes failed on.
func (g *negotiator) scheduled(ctx context.Context, n negotiation, failed error) error {
	if n.State != stateV1 || g.rules.protocol != ProtocolAuto { // the operator's word for v1 is no news of v2: it is asked for as soon as he takes the word back
		return failed
	}
	next := time.Now().UTC().Add(jitter(probeInterval, 0.2))
	_, _, err := g.change(ctx, func(n negotiation) negotiation {
		if n.State == stateV1 {
			n.NextProbe = next
		}
		return n
	})
	if err != nil {
		g.log.Warn("the time of the next probe could not be stored", zap.Error(err))
	}
	return failed
}
