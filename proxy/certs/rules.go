package certs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/hostname"
)

// rules are Settings made ready for use: defaults filled in, names in a set, files read. They are never modified; a handshake keeps those it began with.
type rules struct {
	Settings
	generation uint32 // tells them from those before and after; never 0

	listed map[string]bool
	files  *fileSet // the sites' own certificates
	log    *zap.Logger

	main   keyType // of Settings.Keys
	second keyType // empty: hosts have one certificate
	suffix string  // of the names of second certificates: "+rsa" or "+ecdsa"
}

// newRules checks the settings and reads the files they name. Pairs that the rules before had are kept with what they last read.
func newRules(s Settings, before *rules, log *zap.Logger) (*rules, error) {
	r := &rules{Settings: s.withDefaults(), listed: make(map[string]bool, len(s.Listed)), files: newFileSet(before), log: log, generation: 1}
	if before != nil {
		r.generation = before.generation + 1
	}
	var faults []error
	names := map[string]bool{}
	for _, ca := range s.CAs {
		if ca.Issuer == nil {
			faults = append(faults, errors.New("a CA has no issuer"))
			continue
		}
		if name := ca.Issuer.Name(); names[name] {
			faults = append(faults, fmt.Errorf("two CAs are named %q", name))
		} else {
			names[name] = true
		}
	}
	var err error
	if r.main, r.second, err = parseKeys(s.Keys); err != nil {
		faults = append(faults, err)
	}
	if r.second != "" {
		r.suffix = "+" + r.second.algorithm()
	}
	for _, name := range s.Listed {
		if name != "*" {
			r.listed[name] = true
		}
	}
	for _, policy := range s.Own {
		faults = append(faults, r.readFiles(policy))
	}
	return r, errors.Join(faults...)
}

func (s Settings) withDefaults() Settings {
	if s.Lookup == nil {
		s.Lookup = func(string) (Policy, bool) { return Policy{}, false }
	}
	setDefault(&s.MaxWait, 20*time.Second)
	setDefault(&s.InFlight, 32)
	setDefault(&s.ExpiryFloor, 1.0/6)
	setDefault(&s.UnknownPerClient, 5)
	setDefault(&s.CacheBytes, 256<<20)
	setDefault(&s.Negative, time.Minute)
	setDefault(&s.RenewAt, defaultRenewAt)
	if len(s.Backoff) == 0 {
		s.Backoff = []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}
	}
	return s
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// target says which certificate a host is served with.
type target struct {
	name   string    // of the certificate: the host itself or the wildcard that a site lists, see second.go
	policy Policy    // of the site that claims the host
	file   *filePair // the site's own certificate; then nothing else counts

	// listed: obtained at start and renewed; no permission needed.
	listed bool

	// gated: wanted by nobody but a visitor so far, so Permission decides.
	gated bool

	// brief: a name below a wildcard site that the internal CA serves. Its certificate is made when a visitor comes and lives in memory only:
	// anybody can think of such names without end, and none of them may cost us room on the disk or a renewal.
	brief bool
}

// resolve finds the site that claims the canonical host and the certificate for it. It reports false for hosts that are not ours, and for
// those that a site claims without listing them or wanting certificates on demand.
func (r *rules) resolve(host string) (target, bool) {
	policy, ok := r.Lookup(host)
	if !ok {
		return target{}, false
	}
	t := target{name: host, policy: policy}
	if policy.CertFile != "" {
		t.file = r.files.get(policy)
		return t, true
	}
	if t.listed = r.listed[host]; t.listed {
		return t, true
	}
	if t.gated = policy.OnDemand; t.gated {
		return t, true
	}
	if cas := ChooseCAs(r.CAs, policy.CAs, host); len(cas) > 0 && cas[0].Internal {
		t.brief = true
		return t, true
	}
	if w, ok := hostname.Wildcard(host); ok && r.listed[w] {
		t.name, t.listed = w, true
		return t, true
	}
	return target{}, false
}

// managed finds the target of a certificate's own name. It reports false if no site wants it from us (any more).
func (r *rules) managed(name string) (target, bool) {
	t, ok := r.resolve(probe(subject(name)))
	if ok && isSecond(name) {
		t, ok = r.secondOf(t)
	}
	return t, ok && t.name == name && t.file == nil
}

// wanted are the names of the certificates that are obtained without a visitor.
func (r *rules) wanted() []string {
	var names []string
	for name := range r.listed {
		names = append(names, name)
		if t, ok := r.managed(name); ok {
			if t, ok = r.secondOf(t); ok {
				names = append(names, t.name)
			}
		}
	}
	return names
}

// cas are the CAs that may issue for the target, in order.
func (r *rules) cas(t target) []CA { return ChooseCAs(r.CAs, t.policy.CAs, subject(t.name)) }

// probe is the host by which Lookup is asked for a wildcard: one that no site lists and no certificate authority accepts.
func probe(name string) string {
	if strings.HasPrefix(name, "*.") {
		return "_" + name[1:]
	}
	return name
}
