package acmeclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	dnsPrefix       = "acme/dns/"
	dnsRecordAge    = time.Hour           // no CA asks for a record any more
	dnsRecordGiveUp = 30 * 24 * time.Hour // a record that nobody here can remove is forgotten
)

// dnsRecord is the object acme/dns/<hash>: a TXT record that we are about to make, or made and have not removed yet. Nothing in it is secret.
type dnsRecord struct {
	Name     string    `json:"name"`   // what it proves control over
	FQDN     string    `json:"record"` // canonical, with a final dot
	Zone     string    `json:"zone"`   // that FQDN is in, likewise
	Value    string    `json:"value"`
	Provider string    `json:"provider"` // DNSZone.Name, for a person who looks
	Created  time.Time `json:"created"`
}

func (r *dnsRecord) object() string {
	sum := sha256.Sum256([]byte(r.FQDN + "\n" + r.Value))
	return dnsPrefix + hex.EncodeToString(sum[:16])
}

// rr returns the record as libdns has it. TTL zero means in a creation that nobody keeps it, or the provider's least, and in a removal any TTL.
func (r *dnsRecord) rr() libdns.RR {
	return libdns.RR{Type: "TXT", Name: libdns.RelativeName(r.FQDN, r.Zone), Data: r.Value}
}

// present makes the record that answers a challenge for the name or wildcard. It is in the store first. If it is there already, since an earlier call or
// another process made it, nothing is made. The caller waits for it, and removes it in the end, after an error too if a record was returned.
func (s *DNSSolver) present(ctx context.Context, p *dnsPlace, name, token, keyAuth string) (*dnsRecord, error) {
	challenge := acme.Challenge{
		Type: ChallengeDNS01, Token: token, KeyAuthorization: keyAuth,
		Identifier: acme.Identifier{Type: "dns", Value: strings.TrimPrefix(name, "*.")},
	}
	rec := &dnsRecord{
		Name: name, FQDN: p.fqdn, Zone: p.apex, Value: challenge.DNS01KeyAuthorization(), Provider: p.zone.Name, Created: time.Now().UTC(),
	}
	_, _, err := s.store.Get(ctx, rec.object())
	_, damaged := errors.AsType[*storage.CorruptError](err)
	again := err == nil || damaged // its name says what is in it
	if !again && !errors.Is(err, fs.ErrNotExist) {
		return nil, ofStore(fmt.Errorf("look for the DNS record of an earlier attempt: %w", err))
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode the DNS record: %w", err)
	}
	if _, err := s.store.Put(ctx, rec.object(), data); err != nil {
		return nil, ofStore(fmt.Errorf("store the DNS record for %s: %w", name, err))
	}
	if again && s.everywhere(ctx, rec, p.zone) {
		return rec, nil
	}
	writer := &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider: p.zone.Provider, Resolvers: p.zone.Resolvers, OverrideDomain: strings.TrimSuffix(p.fqdn, "."),
	}}
	call, cancel := context.WithTimeout(ctx, p.zone.patience(providerTimeout))
	defer cancel()
	began := time.Now()
	err = writer.Present(call, challenge)
	if err != nil && again && s.wait(ctx, rec) == nil { // providers refuse to make what is there
		err = nil
	}
	if err != nil {
		return rec, dnsProblem(name, "write the DNS record with "+p.zone.Name, "check the settings of [dns."+p.zone.Name+"] and its access to the zone "+clean(strings.TrimSuffix(p.apex, ".")),
			&providerError{err})
	}
	s.log.Debug("DNS record written", zap.String("name", name), zap.String("record", rec.FQDN), zap.String("provider", rec.Provider), zap.Duration("took", time.Since(began)))
	return rec, nil
}

// everywhere reports whether all servers of the zone have the record now.
func (s *DNSSolver) everywhere(ctx context.Context, rec *dnsRecord, z *dnsZone) bool {
	servers, err := newResolvers(z.Resolvers).servers(ctx, rec.Zone)
	for i, view := range viewAll(ctx, servers, rec) {
		if view != viewHas || servers[i].recurse {
			return false
		}
	}
	return err == nil && len(servers) > 0
}

// providerError is what a provider or its program said: foreign text, made fit to be printed.
type providerError struct{ err error }

func (e *providerError) Error() string { return clean(e.err.Error()) }
func (e *providerError) Unwrap() error { return e.err }

// remove removes the record, and no other of the same name. The work's context may have ended. What stays behind after a fault is swept later.
func (s *DNSSolver) remove(ctx context.Context, rec *dnsRecord) {
	if rec == nil {
		return
	}
	removal, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(cleanUpTimeout, cancel) }) // nobody ends later for a patient provider
	defer stop()
	if err := s.removeNow(removal, rec); err != nil {
		s.log.Warn("the DNS record is removed later", zap.String("name", rec.Name), zap.String("record", rec.FQDN), zap.Error(err))
	}
}

func (s *DNSSolver) removeNow(ctx context.Context, rec *dnsRecord) error {
	z := s.zoneFor(rec.FQDN)
	if z == nil {
		return fmt.Errorf("no configured zone has %s any more", clean(rec.FQDN))
	}
	ctx, cancel := context.WithTimeout(ctx, z.patience(cleanUpTimeout))
	defer cancel()
	// Not by certmagic's CleanUp: it knows only what the same process made, and does not heed a context.
	if _, err := z.Provider.DeleteRecords(ctx, rec.Zone, []libdns.Record{rec.rr()}); err != nil {
		return fmt.Errorf("remove the DNS record %s with %s: %w", clean(rec.FQDN), z.Name, &providerError{err})
	}
	if err := s.store.Delete(ctx, rec.object()); err != nil {
		return fmt.Errorf("forget the DNS record %s: %w", clean(rec.FQDN), err)
	}
	return nil
}

// Sweep removes the records that are older than an hour: leftovers of crashes, and of clean-ups that failed. Programs call it now and then. It goes on
// after an error and returns all.
func (s *DNSSolver) Sweep(ctx context.Context) error {
	var errs []error
	for after := ""; ; {
		names, err := s.store.List(ctx, dnsPrefix, after, 0)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("list DNS records: %w", err))...)
		}
		if len(names) == 0 {
			return errors.Join(errs...)
		}
		for _, object := range names {
			after = object
			if err := s.sweep(ctx, object); err != nil {
				errs = append(errs, err)
			}
		}
	}
}

// sweep removes the record of one object if it is old.
func (s *DNSSolver) sweep(ctx context.Context, object string) error {
	data, _, err := s.store.Get(ctx, object)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, damaged := errors.AsType[*storage.CorruptError](err)
	if err != nil && !damaged {
		return fmt.Errorf("read a DNS record: %w", err)
	}
	rec := &dnsRecord{}
	if damaged || json.Unmarshal(data, rec) != nil || rec.object() != object {
		return s.forget(ctx, object, "it is damaged")
	}
	age := time.Since(rec.Created)
	if age < dnsRecordAge {
		return nil
	}
	err = s.removeNow(ctx, rec)
	switch {
	case err == nil:
		s.log.Info("DNS record of an earlier attempt removed", zap.String("name", rec.Name), zap.String("record", rec.FQDN))
		return nil
	case age > dnsRecordGiveUp:
		return s.forget(ctx, object, err.Error())
	}
	return err
}

// forget gives a record up that cannot be removed.
func (s *DNSSolver) forget(ctx context.Context, object, why string) error {
	s.log.Warn("a DNS record of an earlier attempt is given up", zap.String("object", object), zap.String("reason", why))
	if err := s.store.Delete(ctx, object); err != nil {
		return fmt.Errorf("forget a DNS record: %w", err)
	}
	return nil
}
