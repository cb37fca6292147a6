package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a directory is believed: 12 h as a matter of course, a week if the CA does not give a new one. After a refresh that failed
// the next is tried 5 minutes later.
const (
	directoryAge     = 12 * time.Hour
	directoryMaxAge  = 7 * 24 * time.Hour
	directoryRefresh = 5 * time.Minute
)

// The keys that make a directory one of v2 (RFC 8555 §7.1.1) or of v1 (draft-02), and the further ones that we use.
var (
	v2Keys    = []string{"newNonce", "newAccount", "newOrder"}
	v1Keys    = []string{"new-reg", "new-authz", "new-cert"}
	otherKeys = []string{"newAuthz", "revokeCert", "keyChange", "renewalInfo", "revoke-cert", "key-change"}
)

// directory is what a CA says about itself. It is never modified.
type directory struct {
	endpoints map[string]string // the known keys of both protocols whose values are URLs we may follow
	keys      []string          // all keys of the document, for messages
	terms     string            // URL of the terms of service; empty: there are none
	binding   bool              // newAccount needs an external account binding
	profiles  map[string]string // certificate profiles and their descriptions
}

func (d *directory) newNonce() string { return d.endpoints["newNonce"] }
func (d *directory) newOrder() string { return d.endpoints["newOrder"] }

// speaks reports whether the directory has all of the keys.
func (d *directory) speaks(keys []string) bool {
	for _, k := range keys {
		if d.endpoints[k] == "" {
			return false
		}
	}
	return true
}

// protocol says which ACME the directory offers, v2 if both; an error names the keys that there are.
func (d *directory) protocol() (Protocol, error) {
	switch {
	case d.speaks(v2Keys):
		return ProtocolV2, nil
	case d.speaks(v1Keys):
		return ProtocolV1, nil
	case len(d.keys) == 0:
		return "", errors.New("the directory is empty")
	}
	return "", fmt.Errorf("the directory has neither the keys of ACME v2 (%s) nor those of v1; it has %s",
		strings.Join(v2Keys, ", "), strings.Join(d.keys, ", "))
}

// canonical is the directory for x/crypto/acme: only keys that it knows, only values that it can decode.
func (d *directory) canonical() []byte {
	doc := map[string]any{}
	for k, v := range d.endpoints {
		doc[k] = v
	}
	doc["meta"] = map[string]any{"termsOfService": d.terms, "externalAccountRequired": d.binding, "profiles": d.profiles}
	body, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("acmeclient: encode strings as JSON: %v", err)) // cannot happen
	}
	return body
}

// Bounds of what is kept of a directory.
const (
	maxDirectoryKeys = 32
	maxProfiles      = 64
)

// parseDirectory reads a directory document. Keys that we do not know and values of other types are ignored: Let's Encrypt adds a random key to each
// answer, so that clients learn to do so. Relative and plain URLs count as absent; plain allows http on loopback.
func parseDirectory(body []byte, plain bool) (*directory, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, errors.New("it is no JSON object")
	}
	if raw == nil {
		return nil, errors.New("it is no JSON object, but null")
	}
	d := &directory{endpoints: map[string]string{}, profiles: map[string]string{}}
	for _, key := range slices.Concat(v2Keys, v1Keys, otherKeys) {
		var s string
		if json.Unmarshal(raw[key], &s) != nil {
			continue
		}
		if _, err := parseURL(s, plain); err == nil {
			d.endpoints[key] = s
		}
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if len(d.keys) < maxDirectoryKeys {
			d.keys = append(d.keys, fmt.Sprintf("%q", clean(key)))
		}
	}
	d.parseMeta(raw["meta"])
	return d, nil
}

// parseMeta reads "meta", which is optional in whole and in part (RFC 8555 §9.7.6).
func (d *directory) parseMeta(raw json.RawMessage) {
	var meta map[string]json.RawMessage
	if json.Unmarshal(raw, &meta) != nil {
		return
	}
	d.terms = text(meta["termsOfService"])
	if d.terms == "" {
		d.terms = text(meta["terms-of-service"]) // v1
	}
	_ = json.Unmarshal(meta["externalAccountRequired"], &d.binding) // another type means no
	var profiles map[string]json.RawMessage
	if json.Unmarshal(meta["profiles"], &profiles) != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		if len(d.profiles) < maxProfiles {
			d.profiles[name] = text(profiles[name])
		}
	}
}

// directoryCache is the CA's directory as last seen.
type directoryCache struct {
	url  string
	turn chan struct{} // holds one: whoever fetches; the others wait for the result or for their context

	// mu guards what follows; never held during I/O.
	mu       sync.Mutex
	dir      *directory
	fetched  time.Time // when dir was given
	tried    time.Time // when it was last asked for
	err      error     // of that try
	outdated bool      // an endpoint of it was not there
}

// fresh returns the directory if it need not be asked for now.
func (c *directoryCache) fresh(now time.Time) *directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dir == nil:
		return nil
	case c.err == nil && !c.outdated && now.Sub(c.fetched) < directoryAge:
		return c.dir
	case c.err != nil && now.Sub(c.fetched) < directoryMaxAge && now.Sub(c.tried) < directoryRefresh:
		return c.dir
	}
	return nil
}

// failedSince returns the error of a try that began after the caller started to wait for its turn: what failed for them has failed for us.
func (c *directoryCache) failedSince(waiting time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tried.After(waiting) {
		return c.err
	}
	return nil
}

// update keeps the result of a try and returns what to use now: the new directory, or the old one if there is no new one (stale-if-error).
func (c *directoryCache) update(dir *directory, err error, asked, now time.Time) (*directory, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried, c.err, c.outdated = asked, err, false
	if err == nil {
		c.dir, c.fetched = dir, now
	}
	if c.dir != nil && now.Sub(c.fetched) < directoryMaxAge {
		return c.dir, nil
	}
	return nil, err
}

// expire makes the next operation ask for the directory again.
func (c *directoryCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outdated = true
}

// getDirectory returns the CA's directory, asking for it if the one known is too old. One asks, the others wait.
func (w *wire) getDirectory(ctx context.Context) (*directory, error) {
	c := &w.directory
	waiting := time.Now()
	if dir := c.fresh(waiting); dir != nil {
		return dir, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the directory of %s: %w", w.ca, ctx.Err())
	}
	if dir := c.fresh(time.Now()); dir != nil {
		return dir, nil
	}
	if err := c.failedSince(waiting); err != nil {
		return nil, err
	}
	asked := time.Now()
	var dir *directory
	err := w.retryQuickly(ctx, func() (err error) {
		dir, err = w.fetchDirectory(ctx)
		return err
	})
	if ctx.Err() != nil && err != nil {
		return nil, err // our caller gave up: that says nothing about the CA
	}
	return c.update(dir, err, asked, time.Now())
}

// fetchDirectory gets the directory from the CA. A directory that cannot be used with v2 is an error, so that it never replaces one that can.
func (w *wire) fetchDirectory(ctx context.Context) (*directory, error) {
	const op = "get the directory"
	ex := &exchange{endpoint: endpointDirectory, direct: true}
	var body []byte
	if err := w.do(ctx, ex, http.MethodGet, w.directory.url, nil, &body); err != nil {
		return nil, requestProblem(w.ca, op, ex, err, time.Now())
	}
	if ex.status != http.StatusOK {
		return nil, requestProblem(w.ca, op, ex, &answerError{fmt.Errorf("status %d", ex.status)}, time.Now())
	}
	dir, err := parseDirectory(body, w.plain)
	if err != nil {
		return nil, requestProblem(w.ca, op, ex, &answerError{err}, time.Now())
	}
	protocol, err := dir.protocol()
	switch {
	case err != nil:
		return nil, requestProblem(w.ca, op, ex, &answerError{err}, time.Now())
	case protocol != ProtocolV2:
		p := requestProblem(w.ca, op, ex, &answerError{errV1(dir)}, time.Now())
		p.Advice = "give the CA's v2 directory in `directory`"
		return nil, p
	}
	return dir, nil
}

// errV1 says that a directory is one of ACME v1. It is where negotiation will go on instead.
func errV1(d *directory) error {
	return fmt.Errorf("the directory is one of ACME v1, which is not spoken yet: it has %s", strings.Join(d.keys, ", "))
}
