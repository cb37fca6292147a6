package proxy

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"gatelodge/proxy/hostname"
)

// policySites have names of every kind beside each other, with other policies for neighbours.
var policySites = []Site{
	{Name: "open", Hosts: []string{"open.test", "www.open.test"}},
	{Name: "closed", Hosts: []string{"closed.test"}, ClientAuth: "one"},
	{Name: "wild", Hosts: []string{"*.wild.test"}},
	{Name: "closed-in-wild", Hosts: []string{"closed.wild.test"}, ClientAuth: "two"},
	{Name: "guarded", Hosts: []string{"*.guarded.test", "guarded.test"}, ClientAuth: "one"},
	{Name: "each", Hosts: []string{"*.each.test"}, OnDemand: true},
	{Name: "address", Hosts: []string{"192.0.2.1", "2001:db8::1"}, ClientAuth: "two"},
	{Name: "all", Hosts: []string{"*"}},
}

// slowSite finds the site of a spelling by looking at everything, and the name that it is permitted for.
func slowSite(spelling string) (site *Site, name string, ok bool) {
	name, err := hostname.Normalize(spelling)
	if err != nil {
		return nil, "", false
	}
	for rank := range 3 {
		for i := range policySites {
			for _, h := range policySites[i].Hosts {
				exact := rank == 0 && h == name
				_, rest, dot := strings.Cut(name, ".")
				wild := rank == 1 && dot && h == "*."+rest && !hostname.IsIP(name)
				if exact || wild || rank == 2 && h == "*" {
					return &policySites[i], name, true
				}
			}
		}
	}
	return nil, "", false
}

// FuzzPolicy: whatever a handshake and a request on its connection say, the request is served only if the slow way finds the same site for both, and the same
// name where names are permitted one by one.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{
		"open.test", "OPEN.test.", "closed.test", "x.wild.test", "closed.wild.test", "Closed.Wild.Test", "guarded.test", "x.guarded.test", "x.y.guarded.test",
		"a.each.test", "b.each.test", "192.0.2.1", "[2001:DB8::1]", "2001:db8:0::1", "else.test", "", "*.wild.test", "closed.test:443", "closed.test\x00", "xn--a.wild.test",
	} {
		f.Add(s, "closed.test")
		f.Add("x.wild.test", s)
		f.Add("else.test", s)
		f.Add(s, s+":443")
	}
	srv := &Server{}
	srv.tls = srv.baseConfig()
	sites := make([]Site, len(policySites))
	for i, s := range policySites {
		sites[i] = s
		sites[i].Upstream = nowhere{}
	}
	ca := &x509.Certificate{Raw: []byte("one")}
	st, err := srv.newState(Settings{Sites: sites, ClientAuth: []ClientAuth{{Name: "one", CAs: []*x509.Certificate{ca}}, {Name: "two", CAs: []*x509.Certificate{ca, {Raw: []byte("two")}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sni, host string) {
		c := &conn{state: st, version: 0x304, Conn: datagrams{}}
		i, ok := c.settle(sni, true)
		shaken, name, want := slowSite(sni)
		if ok != want || ok && (st.Sites[i].Name != shaken.Name || c.name != name) {
			t.Fatalf("SNI %q: site %d %v, the slow way says %+v", sni, i, ok, shaken)
		}
		if !ok {
			return
		}
		c.site, c.binding = st.Sites[i].Name, st.doors[i].binding
		x := &exchange{conn: c, state: st, r: &http.Request{Method: http.MethodGet, Host: host, RequestURI: "/", ProtoMajor: 2, Header: http.Header{}}}
		x.ResponseWriter = discard{}
		if x.check() != nil {
			return
		}
		k, ok := st.table.hosts.Lookup(x.host)
		served := ok && x.belongs(k)
		routed, hostName, ok := slowSite(strings.TrimSuffix(host, portOf(host)))
		if !ok {
			if served {
				t.Fatalf("SNI %q, host %q: served, and it is no host", sni, host)
			}
			return
		}
		alone := routed.Name == "all" || routed.OnDemand
		allowed := routed.Name == shaken.Name && (!alone || hostName == name)
		if served != allowed {
			t.Fatalf("SNI %q (%s), host %q (%s): served %v, the slow way says %v", sni, shaken.Name, host, routed.Name, served, allowed)
		}
	})
}

// portOf is what stands behind the host, colon included.
func portOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') && strings.Count(authority, ":") == 1 || i >= 0 && strings.HasSuffix(authority[:i], "]") {
		return authority[i:]
	}
	return ""
}

// discard is a ResponseWriter for those who write nothing.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
