package acmeclient

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"gatelodge/acmeclient/dnsprovider"
)

// The TSIG key of every dnsWorld.
const (
	tsigName   = "gatelodge.test."
	tsigSecret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ="
)

// dnsWorld is the DNS of a test: zones with two name servers on loopback, which answer about all zones as a resolver would and take dynamic updates (RFC 2136)
// with a TSIG key. It leaves out transfers between the two (they share the records, save what `behind` keeps from the second) and DNSSEC.
type dnsWorld struct {
	servers [2]string // addresses: the first takes updates

	mu      sync.Mutex
	zones   []string
	records map[string][]dns.RR // by canonical name
	updates []string            // "add NAME VALUE", "remove NAME VALUE"
	asked   []string            // "TYPE NAME" at the second server
	behind  func(rr dns.RR) bool
	refuse  func(m *dns.Msg) bool // answers SERVFAIL where it says so, updates included
	mangle  func(m *dns.Msg)      // changes answers
}

// newDNSWorld starts both servers for the zones, each of which has an SOA and two NS records.
func newDNSWorld(t *testing.T, zones ...string) *dnsWorld {
	t.Helper()
	w := &dnsWorld{records: map[string][]dns.RR{}}
	for i, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		w.servers[i] = w.serve(t, ip, i)
		w.add(t, fmt.Sprintf("ns%d.servers.test. 60 IN A %s", i+1, ip))
	}
	for _, z := range append(zones, "servers.test.") {
		w.zones = append(w.zones, z)
		w.add(t, z+" 60 IN SOA ns1.servers.test. hostmaster.servers.test. 1 3600 600 86400 60", z+" 60 IN NS ns1.servers.test.", z+" 60 IN NS ns2.servers.test.")
	}
	return w
}

// serve starts one server at the address, on UDP and TCP.
func (w *dnsWorld) serve(t *testing.T, ip string, index int) string {
	t.Helper()
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, r *dns.Msg) { w.answer(rw, r, index) })
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	for _, srv := range []*dns.Server{{Listener: l}, {PacketConn: pc}} {
		srv.Handler, srv.TsigSecret = handler, map[string]string{tsigName: tsigSecret}
		srv.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates, too
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		served.Go(func() { _ = srv.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	t.Cleanup(served.Wait) // runs first: cleanups are last in, first out
	t.Cleanup(func() { _ = l.Close(); _ = pc.Close() })
	return l.Addr().String()
}

// add puts records into the DNS, in the syntax of a zone file.
func (w *dnsWorld) add(t *testing.T, lines ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		w.insert(rr)
	}
}

func (w *dnsWorld) insert(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	if !slices.ContainsFunc(w.records[name], func(old dns.RR) bool { return dns.IsDuplicate(old, rr) }) {
		w.records[name] = append(w.records[name], rr)
	}
}

// set changes what the servers do.
func (w *dnsWorld) set(change func(w *dnsWorld)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// texts returns the values of the name's TXT records, sorted.
func (w *dnsWorld) texts(name string) (values []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, rr := range w.records[name] {
		if t, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(t.Txt, ""))
		}
	}
	slices.Sort(values)
	return values
}

// changes returns the updates that begin with the verb, without it.
func (w *dnsWorld) changes(verb string) (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range w.updates {
		if rest, ok := strings.CutPrefix(u, verb+" "); ok {
			lines = append(lines, rest)
		}
	}
	return lines
}

// answer serves one message.
func (w *dnsWorld) answer(rw dns.ResponseWriter, r *dns.Msg, index int) {
	w.mu.Lock()
	m := new(dns.Msg).SetReply(r)
	switch {
	case len(r.Question) != 1:
		m.Rcode = dns.RcodeFormatError
	case w.refuse != nil && w.refuse(r):
		m.Rcode = dns.RcodeServerFailure
	case r.Opcode == dns.OpcodeUpdate:
		w.update(rw, r, m)
	default:
		if index == 1 {
			w.asked = append(w.asked, dns.TypeToString[r.Question[0].Qtype]+" "+r.Question[0].Name)
		}
		w.query(m, r.Question[0], func(rr dns.RR) bool { return index == 0 || w.behind == nil || !w.behind(rr) })
	}
	if w.mangle != nil {
		w.mangle(m)
	}
	w.mu.Unlock()
	if rw.RemoteAddr().Network() == "udp" {
		m.Truncate(udpSize)
	}
	_ = rw.WriteMsg(m)
}

// query fills in the answer: records of the name, CNAMEs followed, or the zone's SOA.
func (w *dnsWorld) query(m *dns.Msg, q dns.Question, visible func(dns.RR) bool) {
	name := dns.CanonicalName(q.Name)
	for range 10 {
		rrs := w.records[name]
		if wild := w.records["*"+name[strings.Index(name, "."):]]; len(rrs) == 0 && len(wild) > 0 {
			rr := dns.Copy(wild[0])
			rr.Header().Name = name
			rrs = []dns.RR{rr}
		}
		var cname string
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Qtype && visible(rr) {
				m.Answer = append(m.Answer, rr)
			} else if c, ok := rr.(*dns.CNAME); ok {
				m.Answer, cname = append(m.Answer, rr), dns.CanonicalName(c.Target)
			}
		}
		if cname == "" {
			if len(rrs) == 0 {
				m.Rcode = dns.RcodeNameError
			}
			break
		}
		name = cname
	}
	if len(m.Answer) == 0 {
		if z := w.zoneOf(name); z != "" {
			m.Ns = w.records[z][:1]
		}
	}
}

func (w *dnsWorld) zoneOf(name string) (zone string) {
	for _, z := range w.zones {
		if dns.IsSubDomain(z, name) && len(z) > len(zone) {
			zone = z
		}
	}
	return zone
}

// update applies a dynamic update, if it is signed and for a zone.
func (w *dnsWorld) update(rw dns.ResponseWriter, r, m *dns.Msg) {
	sig := r.IsTsig()
	switch {
	case sig == nil || rw.TsigStatus() != nil:
		m.Rcode = dns.RcodeNotAuth
		return
	case !slices.Contains(w.zones, r.Question[0].Name):
		m.Rcode = dns.RcodeNotZone
		return
	}
	m.SetTsig(tsigName, sig.Algorithm, 300, int64(sig.TimeSigned))
	for _, rr := range r.Ns {
		name := dns.CanonicalName(rr.Header().Name)
		t, ok := rr.(*dns.TXT)
		if !ok {
			m.Rcode = dns.RcodeRefused
			return
		}
		line := name + " " + strings.Join(t.Txt, "")
		if t.Hdr.Class == dns.ClassNONE {
			w.updates = append(w.updates, "remove "+line)
			t.Hdr.Class = dns.ClassINET
			w.records[name] = slices.DeleteFunc(w.records[name], func(old dns.RR) bool { return dns.IsDuplicate(old, t) })
			continue
		}
		w.updates = append(w.updates, "add "+line)
		w.insert(t)
	}
}

// zone returns a DNSZone that writes to the world by rfc2136.
func (w *dnsWorld) zone(t *testing.T, suffixes ...string) DNSZone {
	t.Helper()
	p, err := dnsprovider.New("rfc2136", map[string]any{
		"server": w.servers[0], "key_name": tsigName, "key": "env:KEY",
	}, func(string) (string, error) { return tsigSecret, nil })
	if err != nil {
		t.Fatal(err)
	}
	return DNSZone{Name: "corp", Zones: suffixes, Resolvers: w.servers[:], Provider: p}
}
