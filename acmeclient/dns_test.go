package acmeclient

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
	"go.uber.org/zap/zaptest"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// newSolver makes a DNSSolver that asks often.
func newSolver(t *testing.T, store storage.Store, zones ...DNSZone) *DNSSolver {
	t.Helper()
	s, err := NewDNSSolver(zones, store, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	s.pace = dnsPace{pauses: []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}, silence: 200 * time.Millisecond}
	return s
}

// dnsSetup is a pebble that asks the world, and a client that writes to it.
func dnsSetup(t *testing.T, w *dnsWorld, store storage.Store, zone DNSZone, challenges ...string) (*Client, *pebble) {
	t.Helper()
	n := newNode(t, store)
	p := newPebble(t, n, pebbleOptions{dns: w.servers[0]})
	c := newClient(t, p, n, store, func(cfg *Config) {
		cfg.DNS, cfg.Challenges = newSolver(t, store, zone), challenges
	})
	return c, p
}

// dnsObjects returns what is stored of DNS records.
func dnsObjects(t *testing.T, store storage.Store) []string {
	t.Helper()
	names, err := store.List(t.Context(), dnsPrefix, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestObtain_ProvesAWildcardAndItsApexByTwoRecordsOfOneName(t *testing.T) {
	w := newDNSWorld(t, "wild.test.")
	const at = "_acme-challenge.wild.test."
	w.add(t, at+` 60 IN TXT "somebody else's"`)
	store := storage.NewMemory()
	c, p := dnsSetup(t, w, store, w.zone(t, "wild.test"), ChallengeDNS01)
	most := 0
	p.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, pathChallenge) {
			most = max(most, len(w.texts(at)))
			if len(w.texts(at)) < 3 {
				t.Error("the CA is told before all records are there")
			}
		}
		return false
	})
	cert := obtain(t, c, newRequest(t, "*.wild.test", "wild.test"))
	leaf, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil || !slices.Contains(leaf.DNSNames, "*.wild.test") || !slices.Contains(leaf.DNSNames, "wild.test") {
		t.Fatalf("certificate for %v, %v", leaf.DNSNames, err)
	}
	if got := w.texts(at); most != 3 || !slices.Equal(got, []string{"somebody else's"}) {
		t.Errorf("at most %d records, left are %q", most, got)
	}
	if left := dnsObjects(t, store); len(left) != 0 {
		t.Errorf("left in the store: %v", left)
	}
}

func TestObtain_ProvesWildcardsByDNS01ThoughOtherNamesAreNot(t *testing.T) {
	w := newDNSWorld(t, "wild.test.")
	c, p := dnsSetup(t, w, storage.NewMemory(), w.zone(t, "wild.test"))
	w.add(t, "wild.test. 60 IN A 127.0.0.1")
	obtain(t, c, newRequest(t, "*.wild.test", "wild.test"))
	if adds := w.changes("add"); len(adds) != 1 || p.count("POST "+pathChallenge) != 2 {
		t.Errorf("records written: %q", adds)
	}
}

func TestObtain_UsesOtherChallengesWhereNoProviderCanWrite(t *testing.T) {
	w := newDNSWorld(t, "wild.test.", "other.test.")
	w.add(t, "other.test. 60 IN A 127.0.0.1")
	c, _ := dnsSetup(t, w, storage.NewMemory(), w.zone(t, "wild.test"), ChallengeDNS01, ChallengeHTTP01)
	obtain(t, c, newRequest(t, "other.test"))
	if adds := w.changes("add"); len(adds) != 0 {
		t.Errorf("records written: %q", adds)
	}
}

func TestObtain_WritesWhereADelegationLeads(t *testing.T) {
	w := newDNSWorld(t, "customer.test.", "acme.ours.test.", "hoster.test.")
	w.add(t, "_acme-challenge.shop.customer.test. 60 IN CNAME Shop.Hoster.test.", "shop.hoster.test. 60 IN CNAME shop.customer.test.acme.ours.test.")
	zone := w.zone(t)
	zone.DelegateTo = "acme.ours.test"
	c, _ := dnsSetup(t, w, storage.NewMemory(), zone, ChallengeDNS01)
	obtain(t, c, newRequest(t, "shop.customer.test", "*.shop.customer.test"))
	adds := w.changes("add")
	if len(adds) != 2 || !strings.HasPrefix(adds[0], "shop.customer.test.acme.ours.test. ") || len(w.changes("remove")) != 2 {
		t.Errorf("written: %q", adds)
	}
}

func TestObtain_WritesBesideAWildcardCNAMEOfItsOwnZone(t *testing.T) {
	w := newDNSWorld(t, "wild.test.", "hoster.test.")
	w.add(t, "*.wild.test. 60 IN CNAME lb.hoster.test.", "lb.hoster.test. 60 IN A 127.0.0.1")
	c, _ := dnsSetup(t, w, storage.NewMemory(), w.zone(t, "wild.test"), ChallengeDNS01)
	obtain(t, c, newRequest(t, "wild.test"))
	if adds := w.changes("add"); len(adds) != 1 || !strings.HasPrefix(adds[0], "_acme-challenge.wild.test. ") {
		t.Errorf("written: %q", adds)
	}
}

func TestObtain_RefusesBeforeAnyOrderWhatNoProviderCanWrite(t *testing.T) {
	w := newDNSWorld(t, "ours.test.", "customer.test.")
	w.add(t,
		"_acme-challenge.away.customer.test. 60 IN CNAME x.elsewhere.test.",
		"_acme-challenge.loop.customer.test. 60 IN CNAME _acme-challenge.loop2.customer.test.",
		"_acme-challenge.loop2.customer.test. 60 IN CNAME _acme-challenge.loop.customer.test.",
	)
	zone := w.zone(t, "ours.test", "gone")
	zone.DelegateTo = "acme.ours.test"
	c, p := dnsSetup(t, w, storage.NewMemory(), zone, ChallengeDNS01)
	for name, want := range map[string]string{
		"*.customer.test":      `make the record "_acme-challenge.customer.test CNAME customer.test.acme.ours.test"`,
		"customer.test":        "no configured zone has _acme-challenge.customer.test",
		"away.customer.test":   "leads to x.elsewhere.test, which is in no configured zone",
		"loop.customer.test":   "leads back to",
		"nobody.knows.it.gone": "no zone has _acme-challenge.nobody.knows.it.gone",
	} {
		_, err := c.Obtain(t.Context(), newRequest(t, name))
		var prob *Problem
		if !errors.As(err, &prob) || prob.Scope() != ScopeName || prob.Identifier != name || prob.Advice == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := p.count(); got != 0 {
		t.Errorf("%d requests to the CA", got)
	}
}

func TestObtain_HoldsUnreachableResolversAgainstNobodyElse(t *testing.T) {
	w := newDNSWorld(t, "ours.test.")
	zone := w.zone(t, "ours.test")
	zone.Resolvers = []string{freePort(t)}
	c, p := dnsSetup(t, w, storage.NewMemory(), zone, ChallengeDNS01)
	_, err := c.Obtain(t.Context(), newRequest(t, "ours.test"))
	var prob *Problem
	if !errors.As(err, &prob) || prob.Scope() != ScopeName || !strings.Contains(prob.Advice, "check `resolvers`") || p.count() != 0 {
		t.Errorf("%v", err)
	}
}

func TestObtain_TellsTheCAWhenTheSlowestServerHasTheRecord(t *testing.T) {
	w := newDNSWorld(t, "slow.test.")
	looks := 0
	w.set(func(w *dnsWorld) {
		w.behind = func(rr dns.RR) bool { looks++; return looks <= 5 }
	})
	c, p := dnsSetup(t, w, storage.NewMemory(), w.zone(t, "slow.test"), ChallengeDNS01)
	p.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		w.set(func(*dnsWorld) {
			if strings.Contains(r.URL.Path, pathChallenge) && looks <= 5 {
				t.Error("told too early")
			}
		})
		return false
	})
	// Only TXT records lag.
	w.set(func(w *dnsWorld) {
		lag := w.behind
		w.behind = func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeTXT && lag(rr) }
	})
	obtain(t, c, newRequest(t, "*.slow.test"))
	if looks < 6 {
		t.Errorf("only %d looks", looks)
	}
}

func TestObtain_ContinuesItsOrderWhenTheRecordWasLate(t *testing.T) {
	w := newDNSWorld(t, "late.test.")
	w.set(func(w *dnsWorld) {
		w.behind = func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeTXT }
	})
	zone := w.zone(t, "late.test")
	zone.PropagationTimeout = time.Millisecond // one look, or two; none is cut short
	store := storage.NewMemory()
	c, p := dnsSetup(t, w, store, zone, ChallengeDNS01)
	r := newRequest(t, "*.late.test")
	_, err := c.Obtain(t.Context(), r)
	var prob *Problem
	if !errors.As(err, &prob) || prob.Scope() != ScopeName || !strings.Contains(err.Error(), "missing at ns2.servers.test; present at ns1.servers.test") {
		t.Fatalf("%v", err)
	}
	if p.count("POST "+pathChallenge) != 0 || len(w.texts("_acme-challenge.late.test.")) != 1 || len(dnsObjects(t, store)) != 1 {
		t.Fatal("the CA was told, or the record did not stay for the next call")
	}
	w.set(func(w *dnsWorld) { w.behind = nil })
	obtain(t, c, r)
	if got := p.count("POST " + pathOrder); got != 1 || len(w.changes("add")) != 1 {
		t.Errorf("%d orders, written %q", got, w.changes("add"))
	}
	if len(w.texts("_acme-challenge.late.test.")) != 0 || len(dnsObjects(t, store)) != 0 {
		t.Error("the record was not removed in the end")
	}
}

func TestDNSSolver_LeavesServersAsideThatDoNotAnswer(t *testing.T) {
	w := newDNSWorld(t, "half.test.")
	w.add(t, "half.test. 60 IN NS nobody.servers.test.") // that has no address
	c, _ := dnsSetup(t, w, storage.NewMemory(), w.zone(t, "half.test"), ChallengeDNS01)
	began := time.Now()
	obtain(t, c, newRequest(t, "*.half.test"))
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("not waited for: %v", took)
	}
}

func TestDNSSolver_AsksTheResolversWhereNoServerAnswers(t *testing.T) {
	w := newDNSWorld(t, "walled.test.")
	store := storage.NewMemory()
	s := newSolver(t, store, w.zone(t, "walled.test"))
	w.set(func(w *dnsWorld) { // port 53 is closed to us: what is asked without recursion gets no answer
		w.refuse = func(m *dns.Msg) bool { return m.Opcode == dns.OpcodeQuery && !m.RecursionDesired }
	})
	place, err := s.locate(t.Context(), "*.walled.test")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := s.present(t.Context(), place, "*.walled.test", "token", "token.key")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t.Context(), rec); err != nil {
		t.Error(err)
	}
}

func TestDNSSolver_WaitsNoLongerThanItsCaller(t *testing.T) {
	w := newDNSWorld(t, "late.test.")
	s := newSolver(t, storage.NewMemory(), w.zone(t, "late.test"))
	for _, question := range []uint16{dns.TypeNS, dns.TypeTXT} { // the caller leaves while we look for the servers, and for the record
		ctx, leave := context.WithCancel(t.Context())
		w.set(func(w *dnsWorld) {
			w.mangle = func(m *dns.Msg) {
				if len(m.Question) == 1 && m.Question[0].Qtype == question {
					leave()
				}
			}
		})
		var prob *Problem
		if err := s.wait(ctx, &dnsRecord{FQDN: "x.late.test.", Zone: "late.test.", Value: "v"}); !errors.Is(err, context.Canceled) || errors.As(err, &prob) {
			t.Errorf("%s: %v", dns.TypeToString[question], err)
		}
		leave()
	}
}

func TestDNSSolver_TellsServersThatDoNotAnswerFromARecordThatIsMissing(t *testing.T) {
	w := newDNSWorld(t, "mute.test.")
	zone := w.zone(t, "mute.test")
	zone.PropagationTimeout = time.Millisecond
	s := newSolver(t, storage.NewMemory(), zone)
	w.set(func(w *dnsWorld) {
		w.refuse = func(m *dns.Msg) bool { return m.Question[0].Qtype == dns.TypeTXT }
	})
	for _, answers := range []bool{false, true} {
		if answers {
			w.set(func(w *dnsWorld) { w.refuse = nil })
		}
		err := s.wait(t.Context(), &dnsRecord{Name: "x.mute.test", FQDN: "x.mute.test.", Zone: "mute.test.", Value: "v"})
		var prob *Problem
		if !errors.As(err, &prob) || strings.Contains(prob.Detail, "no answer from ns1.servers.test, ns2.servers.test") == answers || strings.Contains(prob.Advice, "port 53") == answers {
			t.Errorf("answers %v: %v", answers, err)
		}
	}
}

func TestObtain_SaysWhatTheProviderSaidAndNoSecret(t *testing.T) {
	w := newDNSWorld(t, "ours.test.")
	w.set(func(w *dnsWorld) { w.refuse = func(m *dns.Msg) bool { return m.Opcode == dns.OpcodeUpdate } })
	store := storage.NewMemory()
	c, p := dnsSetup(t, w, store, w.zone(t, "ours.test"), ChallengeDNS01)
	r := newRequest(t, "*.ours.test")
	_, err := c.Obtain(t.Context(), r)
	var prob *Problem
	if !errors.As(err, &prob) || prob.Scope() != ScopeName || !strings.Contains(err.Error(), "SERVFAIL") || !strings.Contains(prob.Advice, "[dns.corp]") {
		t.Fatalf("%v", err)
	}
	if strings.Contains(err.Error(), tsigSecret) {
		t.Errorf("the error says the secret: %v", err)
	}
	if p.count("POST "+pathChallenge) != 0 || len(dnsObjects(t, store)) != 1 {
		t.Error("the CA was told, or what may have been written is not remembered")
	}
	w.set(func(w *dnsWorld) { w.refuse = nil })
	obtain(t, c, r)
	if got := p.count("POST " + pathOrder); got != 1 || len(dnsObjects(t, store)) != 0 {
		t.Errorf("%d orders, left %v", got, dnsObjects(t, store))
	}
}

func TestObtain_MakesNoRecordThatAnotherCouldNotRemove(t *testing.T) {
	w := newDNSWorld(t, "ours.test.")
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.Put, Prefix: dnsPrefix, Err: errors.New("disk full")})
	c, _ := dnsSetup(t, w, store, w.zone(t, "ours.test"), ChallengeDNS01)
	if _, err := c.Obtain(t.Context(), newRequest(t, "*.ours.test")); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v", err)
	}
	if adds := w.changes("add"); len(adds) != 0 {
		t.Errorf("written: %q", adds)
	}
}

func TestDNSSolver_KeepsManyValuesOfOneNameApart(t *testing.T) {
	w := newDNSWorld(t, "many.test.")
	store := storage.NewMemory()
	s := newSolver(t, store, w.zone(t, "many.test"))
	var each sync.WaitGroup
	for i := range 8 {
		each.Go(func() {
			keyAuth := strings.Repeat("k", i+1)
			place, err := s.locate(t.Context(), "*.many.test")
			if err != nil {
				t.Error(err)
				return
			}
			rec, err := s.present(t.Context(), place, "*.many.test", "token", keyAuth)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.wait(t.Context(), rec); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				s.remove(t.Context(), rec)
				if got := w.texts(rec.FQDN); slices.Contains(got, rec.Value) {
					t.Error("not removed")
				}
			}
		})
	}
	each.Wait()
	if got := w.texts("_acme-challenge.many.test."); len(got) != 4 || len(dnsObjects(t, store)) != 4 {
		t.Errorf("left: %q, stored %d", got, len(dnsObjects(t, store)))
	}
}

// crashed makes records as a process does that dies before it removes them, and lets time pass for them.
func crashed(t *testing.T, s *DNSSolver, name string, age time.Duration) *dnsRecord {
	t.Helper()
	place, err := s.locate(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := s.present(t.Context(), place, name, "token", "token."+name)
	if err != nil {
		t.Fatal(err)
	}
	rec.Created = rec.Created.Add(-age)
	data, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Put(t.Context(), rec.object(), data); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestDNSSolver_SweepsWhatACrashLeftBehind(t *testing.T) {
	w := newDNSWorld(t, "crash.test.", "other.test.")
	store := storage.NewMemory()
	other := w.zone(t, "other.test")
	other.Name = "other"
	broken := &brokenProvider{DNSZone: other}
	other.Provider = broken
	dead := newSolver(t, store, w.zone(t, "crash.test"), other)
	old := crashed(t, dead, "*.crash.test", 61*time.Minute)
	young := crashed(t, dead, "young.crash.test", 59*time.Minute)
	stuck := crashed(t, dead, "other.test", 2*time.Hour)
	if _, err := store.Put(t.Context(), dnsPrefix+"ffff", []byte("{")); err != nil {
		t.Fatal(err)
	}

	broken.fails = true
	s := newSolver(t, store, w.zone(t, "crash.test"), other)
	if err := s.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "_acme-challenge.other.test") {
		t.Errorf("%v", err)
	}
	if len(w.texts(old.FQDN)) != 0 || len(w.texts(young.FQDN)) != 1 || len(w.texts(stuck.FQDN)) != 1 {
		t.Errorf("left: old %q, young %q, stuck %q", w.texts(old.FQDN), w.texts(young.FQDN), w.texts(stuck.FQDN))
	}
	if got, want := dnsObjects(t, store), []string{young.object(), stuck.object()}; !sameSet(got, want) {
		t.Errorf("stored: %v, want %v", got, want)
	}
	broken.fails = false
	if err := s.Sweep(t.Context()); err != nil || len(w.texts(stuck.FQDN)) != 0 {
		t.Errorf("second sweep: %v, left %q", err, w.texts(stuck.FQDN))
	}
}

func TestDNSSolver_GivesUpRecordsOfZonesThatWereTakenAway(t *testing.T) {
	w := newDNSWorld(t, "gone.test.", "stays.test.")
	store := storage.NewMemory()
	before := newSolver(t, store, w.zone(t, "gone.test"))
	crashed(t, before, "gone.test", 40*24*time.Hour)
	recent := crashed(t, before, "recently.gone.test", 24*time.Hour)
	s := newSolver(t, store, w.zone(t, "stays.test"))
	if err := s.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "no configured zone has _acme-challenge.recently.gone.test") {
		t.Errorf("%v", err)
	}
	if got := dnsObjects(t, store); !slices.Equal(got, []string{recent.object()}) {
		t.Errorf("stored: %v", got)
	}
}

func TestDNSSolver_DoesNotWriteAgainWhatIsThere(t *testing.T) {
	w := newDNSWorld(t, "crash.test.")
	store := storage.NewMemory()
	crashed(t, newSolver(t, store, w.zone(t, "crash.test")), "*.crash.test", time.Minute)
	zone := w.zone(t, "crash.test")
	picky := &brokenProvider{DNSZone: zone, fails: true} // as providers that refuse to make what is there
	zone.Provider = picky
	crashed(t, newSolver(t, store, zone), "*.crash.test", 0)
	if picky.calls != 0 {
		t.Errorf("the provider was asked %d times", picky.calls)
	}
	looks := 0
	w.set(func(w *dnsWorld) { // at the first look it is not everywhere yet
		w.behind = func(rr dns.RR) bool {
			looks++
			return rr.Header().Rrtype == dns.TypeTXT && looks < 4
		}
	})
	crashed(t, newSolver(t, store, zone), "*.crash.test", 0)
	if picky.calls != 1 {
		t.Errorf("the provider was asked %d times", picky.calls)
	}
}

func TestDNSSolver_GivesAProviderTheTimeThatItAsksFor(t *testing.T) {
	w := newDNSWorld(t, "slow.test.")
	zone := w.zone(t, "slow.test")
	slow := &patientProvider{DNSZone: zone}
	zone.Provider = slow
	s := newSolver(t, storage.NewMemory(), zone)
	s.remove(t.Context(), crashed(t, s, "slow.test", 2*time.Hour))
	crashed(t, s, "slow.test", 2*time.Hour)
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if len(slow.had) != 4 {
		t.Errorf("%d calls", len(slow.had))
	}
	for _, d := range slow.had {
		if d < 9*time.Minute {
			t.Errorf("a call got %v", d)
		}
	}
}

// patientProvider is the zone's provider, which wants nine minutes.
type patientProvider struct {
	DNSZone
	had []time.Duration
}

func (p *patientProvider) CallTimeout() time.Duration { return 9 * time.Minute }

func (p *patientProvider) note(ctx context.Context) {
	end, _ := ctx.Deadline()
	p.had = append(p.had, time.Until(end))
}

func (p *patientProvider) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.note(ctx)
	return p.Provider.AppendRecords(ctx, zone, recs)
}

func (p *patientProvider) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.note(ctx)
	return p.Provider.DeleteRecords(ctx, zone, recs)
}

// brokenProvider is the zone's provider, which can fail.
type brokenProvider struct {
	DNSZone
	fails bool
	calls int
}

func (b *brokenProvider) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	b.calls++
	if b.fails {
		return nil, errors.New("identical record exists\x1b[31m")
	}
	return b.Provider.AppendRecords(ctx, zone, recs)
}

func (b *brokenProvider) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if b.fails {
		return nil, errors.New("out of order")
	}
	return b.Provider.DeleteRecords(ctx, zone, recs)
}

func sameSet(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestNewDNSSolver_SaysAllFaultsAtOnce(t *testing.T) {
	provider := &brokenProvider{}
	_, err := NewDNSSolver([]DNSZone{
		{Name: "a", Zones: []string{"ok.test", "OK.test."}, Provider: provider},
		{Name: "b", Zones: []string{"ok.test", "-.x", ""}, Resolvers: []string{"", ":53"}, PropagationTimeout: -1},
		{Provider: provider},
	}, storage.NewMemory(), zaptest.NewLogger(t))
	for _, want := range []string{
		`dns "b": ok.test belongs to "a" already`, `"-.x" is not a domain`, `"" is not a domain`, `resolver "" is`, `resolver ":53" is`,
		"propagation timeout -1ns is negative", "a provider is required", "a name is required", "at least one zone is required",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err := NewDNSSolver(nil, nil, nil); err == nil {
		t.Error("no error without anything")
	}
}

func TestDNSSolver_PrefersTheLongestZone(t *testing.T) {
	provider := &brokenProvider{}
	s := newSolver(t, storage.NewMemory(),
		DNSZone{Name: "short", Zones: []string{"example.test"}, Provider: provider},
		DNSZone{Name: "long", Zones: []string{"eu.example.test"}, DelegateTo: "acme.example.test", Provider: provider},
	)
	for fqdn, want := range map[string]string{
		"_acme-challenge.example.test.": "short", "x.notexample.test.": "", "_acme-challenge.a.eu.example.test.": "long",
		"shop.customer.test.acme.example.test.": "long", "neu.example.test.": "short",
	} {
		got := ""
		if z := s.zoneFor(fqdn); z != nil {
			got = z.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", fqdn, got, want)
		}
	}
}

func TestObtain_ProvesByDNS01OverV1(t *testing.T) {
	w := newDNSWorld(t, "old.test.")
	store := storage.NewMemory()
	ca, err := devca.New(devca.Config{Protocols: devca.ProtocolsV1, DNSAddr: w.servers[1]})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	c := newClient(t, &pebble{url: ca.DirectoryURL(), roots: ca.Roots()}, newNode(t, store), store, func(cfg *Config) {
		cfg.DNS, cfg.Challenges = newSolver(t, store, w.zone(t, "old.test")), []string{ChallengeDNS01}
	})
	if cert := obtain(t, c, newRequest(t, "old.test")); cert.Protocol != ProtocolV1 {
		t.Errorf("spoken: %q", cert.Protocol)
	}
	if len(w.changes("add")) != 1 || len(w.changes("remove")) != 1 || len(dnsObjects(t, store)) != 0 {
		t.Errorf("written %q, removed %q", w.changes("add"), w.changes("remove"))
	}
	_, err = c.Obtain(t.Context(), newRequest(t, "*.old.test"))
	var p *Problem
	if !errors.As(err, &p) || p.Scope() != ScopeName || len(w.changes("add")) != 1 {
		t.Errorf("a wildcard: %v", err)
	}
}
