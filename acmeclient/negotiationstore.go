package acmeclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// negotiationAge is how long a node believes what it knows of the negotiation before it reads again what the fleet knows.
const negotiationAge = 5 * time.Minute

// v2SeenAge is how old the time of the last sight of v2 may be in the store, where nothing else has changed.
const v2SeenAge = 24 * time.Hour

func (g *negotiator) object() string { return "acme/" + g.ca + "/negotiation" }

// read returns what the fleet knows. A damaged object may have known that v2 was seen, so that is what is assumed of it.
func (g *negotiator) read(ctx context.Context) (negotiation, storage.Version, error) {
	n, version, err := g.readOnce(ctx)
	if _, damaged := errors.AsType[*storage.CorruptError](err); !damaged {
		return n, version, err
	}
	if err := g.replaceDamaged(ctx, err); err != nil {
		return n, "", err
	}
	return g.readOnce(ctx)
}

func (g *negotiator) readOnce(ctx context.Context) (negotiation, storage.Version, error) {
	var n negotiation
	data, version, err := g.store.Get(ctx, g.object())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		n, err := g.recalled(ctx)
		return n.about(g.directory, g.directoryV1), "", err
	case err != nil:
		return n, "", ofStore(fmt.Errorf("read what was negotiated with %s: %w", g.ca, err))
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return negotiation{}, version, storage.NewCorruptError(g.object(), data, fmt.Errorf("it is no negotiation: %w", err))
	}
	return n.about(g.directory, g.directoryV1), version, nil
}

// recalled is what is known though the fleet's object is not there: what this node knew of it, or that v2 was spoken because the account is known over it. So
// a lost object leads nobody back to v1: a reset leaves one, which says that it was.
func (g *negotiator) recalled(ctx context.Context) (negotiation, error) {
	g.mu.Lock()
	n := g.known
	g.mu.Unlock()
	if n.State != stateUnknown {
		return n, nil
	}
	spoken, err := g.spokeV2(ctx)
	if err != nil || !spoken {
		return n, err
	}
	return g.assumedV2("the account is known over ACME v2, and what was negotiated is lost"), nil
}

// assumedV2 is a negotiation of which there are signs only: a CA that speaks v2 goes on without anybody, and to v1 an operator's reset alone leads (DESIGN 3.3).
func (g *negotiator) assumedV2(why string) negotiation {
	return negotiation{State: stateV2, V2At: atDirectory, Since: time.Now().UTC(), Evidence: why, Directory: g.directory, DirectoryV1: g.directoryV1}
}

// replaceDamaged puts aside what cannot be read and has it that v2 was spoken.
func (g *negotiator) replaceDamaged(ctx context.Context, damage error) error {
	if err := storage.Quarantine(ctx, g.store, g.object(), damage, g.log); err != nil {
		return fmt.Errorf("%w; restore it, or reset the CA: it could not be put aside: %w", damage, err)
	}
	data, err := json.Marshal(g.assumedV2("what was known is damaged"))
	if err != nil {
		return fmt.Errorf("encode the negotiation: %w", err)
	}
	if _, err := g.store.PutIf(ctx, g.object(), data, ""); err != nil && !errors.Is(err, storage.ErrConflict) { // a conflict: another node was faster
		return ofStore(fmt.Errorf("store what is assumed of %s: %w", g.ca, err))
	}
	return nil
}

// current returns what is known, from memory if that is young enough or the store does not answer.
func (g *negotiator) current(ctx context.Context) (negotiation, error) {
	g.mu.Lock()
	n, have, young := g.known, !g.readAt.IsZero(), time.Since(g.readAt) < negotiationAge
	g.mu.Unlock()
	if have && young {
		return n, nil
	}
	now, _, err := g.read(ctx)
	if err == nil {
		g.keep(now)
		return now, nil
	}
	if have {
		g.log.Warn("what was negotiated cannot be read; what this node knows is used", zap.Error(err))
		return n, nil
	}
	return n, err
}

// keep makes n what this node knows.
func (g *negotiator) keep(n negotiation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known.State == stateV2 && n.State != stateV2 || g.known.V2At != n.V2At {
		g.wire.directory.clear() // it is not to outlive the decision for it
	}
	if g.known.State != n.State {
		poke(g.changed)
		if n.State == stateV2 {
			g.forgive(ScopeCA) // what v1 said of the CA as a whole does not hold for v2
		}
	}
	g.known, g.readAt = n, time.Now()
	g.metrics.Speaks(g.ca, n.speaks(g.rules).version())
}

// overwrite stores n whatever is there.
func (g *negotiator) overwrite(ctx context.Context, n negotiation) error {
	data, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode the negotiation: %w", err)
	}
	_, err = g.store.Put(ctx, g.object(), data)
	return err
}

// change lets decide make a new state of the fleet's, as often as other nodes come first, and returns what it was and is.
func (g *negotiator) change(ctx context.Context, decide func(negotiation) negotiation) (before, after negotiation, err error) {
	for range 5 {
		var version storage.Version
		if before, version, err = g.read(ctx); err != nil {
			g.mu.Lock()
			before = g.known
			g.mu.Unlock()
			return before, decide(before), err
		}
		after = decide(before)
		if sameNegotiation(before, after) && version != "" {
			g.keep(after)
			return before, after, nil
		}
		data, encodeErr := json.Marshal(after)
		if encodeErr != nil {
			return before, after, fmt.Errorf("encode the negotiation: %w", encodeErr)
		}
		if _, err = g.store.PutIf(ctx, g.object(), data, version); err == nil {
			g.keep(after)
			return before, after, nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	return before, after, ofStore(fmt.Errorf("store what was negotiated with %s: %w", g.ca, err))
}

// sameNegotiation reports whether b says nothing new: that v2 was seen once more is no news for a day, nor is trouble in other words.
func sameNegotiation(a, b negotiation) bool {
	if b.V2Seen.Sub(a.V2Seen) < v2SeenAge {
		a.V2Seen = b.V2Seen
	}
	if (a.Trouble == "") == (b.Trouble == "") {
		a.Trouble = b.Trouble
	}
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}
