//go:build peers

package acmeclient

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"gatelodge/acmeclient/devca"
	"gatelodge/acmeclient/dnsprovider"
	"gatelodge/storage"
)

// nameServers are two real ones: Debian's bind9 on 127.0.0.1, the primary, which takes updates signed with a TSIG key, and Debian's knot on 127.0.0.2, which transfers
// the zone from it when notified. (BIND listens only on addresses that an interface has.)
type nameServers struct{ addrs []string }

const bindConf = `options {
	directory "%[1]s"; pid-file none; session-keyfile "%[1]s/session.key"; lock-file none; managed-keys-directory "%[1]s";
	listen-on port %[2]s { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; allow-transfer { 127.0.0.0/8; };
	notify explicit; notify-delay 0;
};
controls { };
key "gatelodge." { algorithm hmac-sha256; secret "` + tsigSecret + `"; };
zone "bind.test" { type primary; file "zone"; allow-update { key "gatelodge."; }; also-notify { 127.0.0.2 port %[3]s; }; };
`

const knotConf = `server:
    rundir: "%[1]s"
    listen: 127.0.0.2@%[3]s
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: "%[1]s/knot.sock"
database:
    storage: "%[1]s"
log:
  - target: stderr
    any: info
remote:
  - id: primary
    address: 127.0.0.1@%[2]s
acl:
  - id: primary
    address: 127.0.0.1
    action: notify
zone:
  - domain: bind.test
    storage: "%[1]s"
    zonefile-sync: -1
    master: primary
    acl: primary
`

const bindZone = `$TTL 60
@ IN SOA ns1 hostmaster 1 3600 600 86400 60
@ IN NS ns1
@ IN NS ns2
ns1 IN A 127.0.0.1
ns2 IN A 127.0.0.2
_acme-challenge.shop IN CNAME shop.bind.test.acme
`

// startNameServers starts both until the test ends, with the zone bind.test.
func startNameServers(t *testing.T) *nameServers {
	t.Helper()
	n := &nameServers{addrs: []string{bothFree(t, "127.0.0.1"), bothFree(t, "127.0.0.2")}}
	_, primary, _ := net.SplitHostPort(n.addrs[0])
	_, secondary, _ := net.SplitHostPort(n.addrs[1])
	write := func(dir, name, format string, args ...any) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	bind, knot := t.TempDir(), t.TempDir()
	write(bind, "zone", bindZone)
	n.start(t, n.addrs[0], "named", "-g", "-n", "1", "-c", write(bind, "named.conf", bindConf, bind, primary, secondary))
	n.start(t, n.addrs[1], "knotd", "-c", write(knot, "knot.conf", knotConf, knot, primary, secondary))
	return n
}

// bothFree returns an address that is free for UDP and TCP.
func bothFree(t *testing.T, ip string) string {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", ip+":0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			pc.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free for UDP and TCP")
	return ""
}

// start runs a name server until the test ends, and waits until it has the zone.
func (n *nameServers) start(t *testing.T, addr, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program // which is not in everybody's PATH
	}
	cmd := exec.Command(path, args...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is told by what it said
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("%s:\n%s", program, out)
		}
	})
	deadline := time.After(20 * time.Second)
	for {
		if m, err := exchangeDNS(t.Context(), addr, "bind.test.", dns.TypeSOA, false); err == nil && len(m.Answer) > 0 {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended", program)
		case <-deadline:
			t.Fatalf("%s does not answer", program)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// zone returns a DNSZone that writes to the primary.
func (n *nameServers) zone(t *testing.T, secret string) DNSZone {
	t.Helper()
	p, err := dnsprovider.New("rfc2136", map[string]any{"server": n.addrs[0], "key_name": "gatelodge.", "key_alg": "hmac-sha256", "key": "env:KEY"},
		func(string) (string, error) { return secret, nil })
	if err != nil {
		t.Fatal(err)
	}
	return DNSZone{Name: "bind", Zones: []string{"bind.test"}, Resolvers: n.addrs, Provider: p}
}

// empty waits until neither server has a TXT record at the name.
func (n *nameServers) empty(t *testing.T, fqdn string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, server := range n.addrs {
		for {
			m, err := exchangeDNS(ctx, server, fqdn, dns.TypeTXT, false)
			if err == nil && len(m.Answer) == 0 {
				break
			}
			if sleepErr := sleep(ctx, 20*time.Millisecond); sleepErr != nil {
				t.Fatalf("%s still has %v (%v)", server, m, err)
			}
		}
	}
}

func TestPeerBIND_IssuesAndRenewsAWildcard(t *testing.T) {
	servers := startNameServers(t)
	for name, newCA := range map[string]func(*testing.T, *node) (string, *x509.CertPool){
		"pebble": func(t *testing.T, n *node) (string, *x509.CertPool) {
			p := newPebble(t, n, pebbleOptions{dns: servers.addrs[0]})
			return p.url, p.roots
		},
		"devca, asking the secondary": func(t *testing.T, _ *node) (string, *x509.CertPool) {
			ca, err := devca.New(devca.Config{DNSAddr: servers.addrs[1]})
			if err != nil {
				t.Fatal(err)
			}
			if err := ca.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ca.Close() })
			return ca.DirectoryURL(), ca.Roots()
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := storage.NewMemory()
			n := newNode(t, store)
			directory, roots := newCA(t, n)
			solver := newSolver(t, store, servers.zone(t, tsigSecret))
			solver.pace = defaultDNSPace()
			c := newClient(t, &pebble{url: directory, roots: roots}, n, store, func(cfg *Config) { cfg.DNS = solver })

			began := time.Now()
			r := newRequest(t, "*.bind.test", "*.shop.bind.test")
			cert := obtain(t, c, r)
			t.Logf("two wildcards, one delegated: %v", time.Since(began).Round(time.Millisecond))
			began = time.Now()
			renewal := newRequest(t, r.Names...)
			renewal.Predecessor = cert.Chain
			renewed := obtain(t, c, renewal)
			t.Logf("renewed: %v", time.Since(began).Round(time.Millisecond))
			if bytes.Equal(cert.Chain[0], renewed.Chain[0]) {
				t.Error("the renewal brought the same certificate")
			}
			began = time.Now()
			obtain(t, c, newRequest(t, "*.one.bind.test"))
			t.Logf("one wildcard: %v", time.Since(began).Round(time.Millisecond))

			servers.empty(t, "_acme-challenge.bind.test.")
			servers.empty(t, "shop.bind.test.acme.bind.test.")
			servers.empty(t, "_acme-challenge.one.bind.test.")
			if left := dnsObjects(t, store); len(left) != 0 {
				t.Errorf("left in the store: %v", left)
			}
		})
	}
}

func TestPeerBIND_RefusesAWrongKeyAndTheErrorSaysSo(t *testing.T) {
	servers := startNameServers(t)
	const wrong = "d3JvbmctY29uZmlndXJlZC10c2lnLWtleS13cm9uZw=="
	store := storage.NewMemory()
	s := newSolver(t, store, servers.zone(t, wrong))
	place, err := s.locate(t.Context(), "*.bind.test")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.present(t.Context(), place, "*.bind.test", "token", "token.key")
	var p *Problem
	if !errors.As(err, &p) || !strings.Contains(err.Error(), "NOTAUTH") && !strings.Contains(err.Error(), "bad ") {
		t.Errorf("%v", err)
	}
	if err != nil && strings.Contains(err.Error(), wrong) {
		t.Errorf("the error says the secret: %v", err)
	}
	t.Log(err)
}

func TestPeerBIND_LosesWhatACrashLeftBehind(t *testing.T) {
	servers := startNameServers(t)
	store := storage.NewMemory()
	rec := crashed(t, newSolver(t, store, servers.zone(t, tsigSecret)), "*.bind.test", 2*time.Hour)
	if err := newSolver(t, store, servers.zone(t, tsigSecret)).Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	servers.empty(t, rec.FQDN)
}
