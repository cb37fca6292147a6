package acmeclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	v2Keys      = []string{"newNonce", "newAccount", "newOrder"}
	v1Keys      = []string{"new-reg", "new-authz", "new-cert"}
	otherKeys   = []string{"newAuthz", "revokeCert", "keyChange", "renewalInfo"}
	otherV1Keys = []string{"revoke-cert", "key-change"}
)

// directory is what a CA says about itself. It is never modified.
type directory struct {
	url        string            // where it was got
	endpoints  map[string]string // the known keys of both protocols whose values are URLs we may follow
	keys       []string          // all keys of the document, for messages
	mentionsV2 bool              // one of the keys of v2 is there, with whatever value
	terms      string            // URL of the terms of service; empty: there are none
	binding    bool              // newAccount needs an external account binding
	profiles   map[string]string // certificate profiles and their descriptions
	caa        []string          // names of the CA in CAA records (caaIdentities, RFC 8555 §9.7.6)
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

// protocol says which ACME the directory offers, v2 if both; an error names the keys that there are. A directory with keys of v2 that cannot be used is
// none of v1, whatever else it has.
func (d *directory) protocol() (Protocol, error) {
	switch {
	case d.speaks(v2Keys):
		return ProtocolV2, nil
	case d.speaks(v1Keys) && !d.mentionsV2:
		return ProtocolV1, nil
	case len(d.keys) == 0:
		return "", errors.New("the directory is empty")
	}
	return "", fmt.Errorf("the directory has neither absolute https URLs for all keys of ACME v2 (%s) nor those of v1 alone; it has %s",
		strings.Join(v2Keys, ", "), strings.Join(d.keys, ", "))
}

// v1Endpoints are the URLs of a v1 directory.
func (d *directory) v1Endpoints() map[string]string {
	urls := map[string]string{}
	for _, key := range slices.Concat(v1Keys, otherV1Keys) {
		if u := d.endpoints[key]; u != "" {
			urls[key] = u
		}
	}
	return urls
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
	maxCAAIdentities = 16
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
	for _, key := range slices.Concat(v2Keys, v1Keys, otherKeys, otherV1Keys) {
		var s string
		if json.Unmarshal(raw[key], &s) != nil {
			continue
		}
		if _, err := parseURL(s, plain); err == nil {
			d.endpoints[key] = s
		}
	}
	d.mentionsV2 = slices.ContainsFunc(v2Keys, func(key string) bool { _, ok := raw[key]; return ok })
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
	_ = json.Unmarshal(meta["externalAccountRequired"], &d.binding)                      // another type means no
	d.caa = append(textList(meta["caaIdentities"]), textList(meta["caa-identities"])...) // the latter in v1
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

// textList returns the strings of the JSON array in raw, cleaned, up to maxCAAIdentities; anything else is empty.
func textList(raw json.RawMessage) (list []string) {
	var all []json.RawMessage
	_ = json.Unmarshal(raw, &all)
	for _, one := range all[:min(len(all), maxCAAIdentities)] {
		if s := text(one); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// directoryCache is the CA's v2 directory as last seen.
type directoryCache struct {
	turn chan struct{} // holds one: whoever looks; the others wait for the result or for their context

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

// usable returns the directory, old or not, unless it is too old for anything. The error is that of the last try.
func (c *directoryCache) usable(now time.Time) (*directory, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != nil && now.Sub(c.fetched) < directoryMaxAge {
		return c.dir, nil
	}
	return nil, c.err
}

// age returns how long ago the directory was given, and whether the last try failed; false if there is none.
func (c *directoryCache) age(now time.Time) (age time.Duration, failing, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.fetched), c.err != nil, c.dir != nil
}

// clear forgets the directory.
func (c *directoryCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir, c.err, c.outdated = nil, nil, false
}

// expire makes the next operation ask for the directory again.
func (c *directoryCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outdated = true
}
