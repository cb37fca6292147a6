package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/storage"
)

// mint makes certificates with as much in them as those of Let's Encrypt.
type mint struct {
	ca   *fakeCA
	logs []byte // identifiers of the logs in SCTs
}

func newMint(t testing.TB) *mint {
	t.Helper()
	return &mint{ca: newFakeCA(t, "mint"), logs: make([]byte, 64)}
}

func (m *mint) bundle(t testing.TB, name string) *storage.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 140))
	if err != nil {
		t.Fatal(err)
	}
	scts := append(slices.Clone(m.logs), make([]byte, 242-len(m.logs))...) // two
	skid := make([]byte, 20)
	_, _ = rand.Read(scts[len(m.logs):])
	_, _ = rand.Read(skid)
	template := &x509.Certificate{
		SerialNumber: serial, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * day),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		IssuingCertificateURL: []string{"http://e7.i.lencr.org/"}, CRLDistributionPoints: []string{"http://e7.c.lencr.org/42.crl"},
		Subject: pkix.Name{CommonName: name}, PolicyIdentifiers: []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}}, SubjectKeyId: skid, AuthorityKeyId: m.logs[:20],
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: scts}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.ca.cert, &key.PublicKey, m.ca.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &storage.Bundle{Names: []string{name}, CA: "mint", Chain: [][]byte{der, m.ca.cert.Raw}, Key: pkcs8, Issued: time.Now()}
}

func (m *mint) cert(t testing.TB, name string) *certificate {
	t.Helper()
	c, err := newCertificate(name, m.bundle(t, name), 2.0/3)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPack_GivesBackTheSameCertificate checks every kind of key and of name, and all that is known of a certificate but its notes.
func TestPack_GivesBackTheSameCertificate(t *testing.T) {
	ca := newFakeCA(t, "fake")
	for kind, names := range map[keyType][]string{
		ecdsaP256: {"a.example.com", "*.example.com", "xn--mnchen-3ya.example", "2001:db8::1"}, ecdsaP384: {"a.example.com"}, rsa2048: {"b.example.com+rsa"},
	} {
		for _, name := range names {
			pending, err := newPendingKey([]string{subject(name)}, kind, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			issued, err := ca.Issue(t.Context(), &Request{Names: pending.Names, CSR: pending.CSR})
			if err != nil {
				t.Fatal(err)
			}
			b := &storage.Bundle{CA: "fake", Chain: issued.Chain, Key: pending.Key, Issued: time.Now().UTC().Truncate(time.Millisecond)}
			if kind == ecdsaP384 {
				b.RenewStart, b.RenewEnd = b.Issued.Add(30*day), b.Issued.Add(31*day)
				b.Extra = map[string]json.RawMessage{extraEarly: json.RawMessage("true")}
			}
			want, err := newCertificate(name, b, 2.0/3)
			if err != nil {
				t.Fatal(err)
			}
			if kind == rsa2048 { // as of a brief one
				want.until = want.renewAt
			}
			c := newCache()
			c.resize(1 << 20)
			c.put(want)
			got := c.cert(name)
			private := got.tls.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool })
			if !private.Equal(want.tls.PrivateKey) || !got.tls.Leaf.Equal(want.tls.Leaf) || !reflect.DeepEqual(got.tls.Certificate, want.tls.Certificate) {
				t.Errorf("%s, %s: another pair", name, kind)
			}
			if got.tls = want.tls; !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: got %+v, want %+v", name, kind, got, want)
			}
		}
	}
}

// check compares what the cache holds with what it says that it holds.
func (c *cache) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	queued, hot := map[*entry]bool{}, 0
	for id := smallQueue; id <= mainQueue; id++ {
		bytes, newer := int64(0), (*entry)(nil)
		for e := c.queues.of[id].newest; e != nil; e = e.older {
			if bytes += int64(e.size); e.queue != id || e.newer != newer || c.lookLocked(e.host()) != e {
				t.Fatalf("%s is out of place", e.host())
			}
			if queued[e], newer = true, e; e.slot >= 0 {
				hot++
			}
			if (e.ready.Load() != nil) != (e.slot >= 0 && c.hot.ring[e.slot] == e) {
				t.Fatalf("%s: ready, but not in the hot set, or the reverse", e.host())
			}
		}
		if bytes != c.queues.of[id].bytes || c.queues.of[id].oldest != newer {
			t.Fatalf("queue %d has %d bytes, says %d", id, bytes, c.queues.of[id].bytes)
		}
	}
	refs := 0
	for _, s := range c.sources {
		refs += s.refs
	}
	inTable := 0
	c.table.each(func(e *entry) {
		if inTable++; !queued[e] {
			t.Fatalf("%s is in no queue", e.host())
		}
	})
	ring := 0
	for _, e := range c.hot.ring {
		if e != nil {
			ring++
		}
	}
	if inTable != len(queued) || refs != inTable || ring != hot {
		t.Fatalf("%d entries in the table, %d in queues, %d references to sources, %d hot, %d in the ring", inTable, len(queued), refs, hot, ring)
	}
	if over := c.queues.bytes() + c.hot.share() - c.budget; over > 0 && inTable > 0 {
		t.Fatalf("%d bytes too many", over)
	}
}

// TestCache_KeepsItsAccounts does what comes to mind, in random order, and counts after it.
func TestCache_KeepsItsAccounts(t *testing.T) {
	m := newMint(t)
	var certs []*certificate
	for i := range 60 {
		certs = append(certs, m.cert(t, fmt.Sprintf("n%d.example.com", i%40)))
		certs[i].ca = fmt.Sprint("ca", i%3)
	}
	other := &rules{generation: 2}
	for seed := range uint64(20) {
		random := mathrand.New(mathrand.NewPCG(seed, 0))
		r, c := &rules{generation: 1}, newCache()
		c.resize(40 << 10)
		for range 400 {
			cert := certs[random.IntN(len(certs))]
			host := fmt.Sprintf("h%d.example.com", random.IntN(40))
			switch random.IntN(8) {
			case 0, 1:
				c.put(cert)
			case 2:
				c.drop(cert.name)
			case 3:
				c.claim(host, target{name: "n1.example.com"}, r)
			case 4:
				c.claim(cert.name, target{name: cert.name, file: &filePair{fileKey: fileKey{cert: host}}}, r)
			case 5:
				c.claim(cert.name, target{name: cert.name}, other)
			case 6:
				for range 3 {
					c.serve(&tls.ClientHelloInfo{}, cert.name, r, time.Now())
					c.serve(&tls.ClientHelloInfo{}, host, r, time.Now())
				}
			case 7:
				if random.IntN(10) == 0 {
					c.resize(int64(random.IntN(60) << 10))
				}
			}
			c.check(t)
		}
	}
}

func TestCache_KeepsWhatIsInDemandWhileStrangersPassThrough(t *testing.T) {
	m, r := newMint(t), &rules{generation: 1}
	c := newCache()
	c.resize(200 << 10) // some 150 names
	visit := func(cert *certificate) bool {
		if c.serve(&tls.ClientHelloInfo{}, cert.name, r, time.Now()) != nil {
			return true
		}
		c.put(cert)
		c.claim(cert.name, target{name: cert.name}, r)
		return false
	}
	var regulars []*certificate
	for i := range 50 {
		regulars = append(regulars, m.cert(t, fmt.Sprintf("regular%d.example.com", i)))
	}
	for range 3 {
		for _, cert := range regulars {
			visit(cert)
		}
	}
	misses := 0
	for i := range 3000 {
		visit(m.cert(t, fmt.Sprintf("stranger%d.example.com", i)))
		if !visit(regulars[i%len(regulars)]) {
			misses++
		}
	}
	if misses > 50 {
		t.Errorf("%d of 3000 visits found a regular gone", misses)
	}
	c.check(t)
}

func TestCache_FindsWhatIsThereWhileEverythingAroundItChanges(t *testing.T) {
	m, r := newMint(t), &rules{generation: 1}
	c := newCache()
	c.resize(1 << 30)
	const fixed = 200
	var certs []*certificate
	for i := range fixed {
		certs = append(certs, m.cert(t, fmt.Sprintf("n%d.example.com", i)))
		c.put(certs[i])
		c.claim(certs[i].name, target{name: certs[i].name}, r)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				name := certs[i%fixed].name
				if got := c.serve(&tls.ClientHelloInfo{}, name, r, time.Now()); got == nil || got.Leaf.DNSNames[0] != name {
					t.Errorf("%s is served with %v", name, got)
					return
				}
			}
		})
	}
	for i := range 20000 { // grows all parts some times
		c.claim(fmt.Sprintf("host%d.example.com", i), target{name: "n1.example.com"}, r)
		if i%3 == 0 {
			c.drop(fmt.Sprintf("host%d.example.com", i/2))
		}
		if i%100 == 0 {
			again := *certs[i/100]
			again.renewAt = again.renewAt.Add(time.Hour)
			c.put(&again)
		}
	}
	stop.Store(true)
	readers.Wait()
	c.check(t)
}

func TestCache_SharesChainsAndLetsThemGo(t *testing.T) {
	m := newMint(t)
	c := newCache()
	c.resize(1 << 20)
	for i := range 100 {
		c.put(m.cert(t, fmt.Sprintf("n%d.example.com", i)))
	}
	if a, b := c.get("n1.example.com"), c.get("n2.example.com"); len(c.sources) != 1 || a.of != b.of {
		t.Errorf("%d chains", len(c.sources))
	}
	for i := range 100 {
		c.drop(fmt.Sprintf("n%d.example.com", i))
	}
	if len(c.sources) != 0 {
		t.Errorf("%d chains of nothing", len(c.sources))
	}
	c.check(t)
}

// A resident name costs 1.3 KB at most, with everything that memory has of it.
func TestManager_TakesLittleMemoryForAName(t *testing.T) {
	const names = 4000
	budget := 1331
	if testing.Short() {
		budget *= 2 // the race detector, which the gate runs with -short, changes sizes
	}
	perName, counted := heapPerName(t, names)
	t.Logf("%d bytes of heap a name, %d counted by the cache", perName, counted)
	if perName > budget {
		t.Errorf("%d bytes of heap a name", perName)
	}
}

// heapPerName installs so many certificates and returns what each costs, and what the cache thinks.
func heapPerName(t testing.TB, names int) (heap, counted int) {
	h := newHouse(t)
	h.set.CacheBytes = 1 << 30
	h.open()
	m := newMint(t)
	install := func(i int) { h.m.install(m.cert(t, fmt.Sprintf("shop-%d.customers.example", i))) }
	install(0)
	before, counts := heapInUse(), h.m.cache.bytes()
	for i := range names {
		install(i + 1)
	}
	h.m.index.each(func(shard int) {
		if _, _, err := h.m.index.sync(t.Context(), shard, false); err != nil {
			t.Error(err)
		}
	})
	for shard := range indexShards { // what is stored lies in memory here
		if err := h.store.Delete(t.Context(), indexObject(shard)); err != nil {
			t.Fatal(err)
		}
	}
	after := heapInUse()
	return int(after-before) / names, int(h.m.cache.bytes()-counts) / names
}

func heapInUse() int64 {
	var s runtime.MemStats
	for range 3 { // sync.Pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func FuzzDelta_ComesBackAsItWas(f *testing.F) {
	f.Add([]byte("shop-1.example is like shop-2.example"), []byte("shop-2.example is like shop-3.example"))
	f.Add([]byte{}, []byte{0, 0, 0, 5, 1})
	f.Fuzz(func(t *testing.T, data, other []byte) {
		got, err := applyDelta(appendDelta(nil, data, other), other, len(data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q with %q: %q, %v", data, other, got, err)
		}
		if got, err := applyDelta(other, data, 10); err == nil && len(got) != 10 { // what was never a delta
			t.Errorf("%q", got)
		}
	})
}

func BenchmarkCache_HeapPerName(b *testing.B) {
	heap, counted := 0, 0
	for b.Loop() {
		heap, counted = heapPerName(b, 100_000)
	}
	b.ReportMetric(float64(heap), "heap-B/name")
	b.ReportMetric(float64(counted), "counted-B/name")
}

func BenchmarkCache_Unpack(b *testing.B) {
	c := newCache()
	c.resize(1 << 20)
	c.put(newMint(b).cert(b, "a.example.com"))
	e := c.get("a.example.com")
	b.ReportAllocs()
	for b.Loop() {
		e.unpack()
	}
}
