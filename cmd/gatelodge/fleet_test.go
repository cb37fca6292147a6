//go:build peers

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fleet is some gatelodge processes on one bucket, behind a balancer that knows nothing of them but their addresses.
type fleet struct {
	*lodge
	nodes  []*node
	bucket *bucket
	orders orderCounter
}

type node struct {
	n           int
	https, http string
	process     *process
}

// newFleet starts an object store, Pebble and the nodes. Pebble validates through the balancer, so any node may be asked.
func newFleet(t *testing.T, size int) *fleet {
	return newFleetBehind(t, size, func(f *fleet) {
		f.balance(f.lodge.https, func(n *node) string { return n.https })
		f.balance(f.lodge.http, func(n *node) string { return n.http })
	}, func(_ *node, config string) string { return config })
}

// newFleetBehind is newFleet with a balancer to taste, and nodes that suit it.
func newFleetBehind(t *testing.T, size int, balancer func(*fleet), suit func(n *node, config string) string) *fleet {
	f := &fleet{lodge: newBareLodge(t), bucket: startBucket(t)}
	f.orders.names = map[string]int{}
	directory := f.startPebbleBehind(3600, f.orders.count)
	for i := range size {
		n := &node{n: i, https: freeAddr(t), http: freeAddr(t)}
		f.nodes = append(f.nodes, n)
		f.write(n.file(), suit(n, f.nodeConfig(n, directory)))
	}
	f.write("names", "*.test\n")
	f.write("kek", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))+"\n")
	balancer(f)
	for _, n := range f.nodes {
		f.up(n)
	}
	return f
}

func (n *node) file() string { return fmt.Sprintf("node%d.toml", n.n) }

func (f *fleet) nodeConfig(n *node, directory string) string {
	return fmt.Sprintf(`
[listen]
https = [%q]
http  = [%q]

[listen.limits]
unknown_names_per_ip = "0"

[storage]
kind = "s3"
path = %q

[storage.s3]
endpoint   = %q
bucket     = "certs"
prefix     = "fleet/"
local_copy = %q

[storage.encryption]
keys = ["1=file:%s"]

[admin]
listen  = %q
metrics = ""

[log]
format = "text"
access = "off"

[issue.budget]
new_orders            = "0"
per_registered_domain = "0"

[[ca]]
name      = "pebble"
directory = %q
roots     = [%q]

[on_demand]
enabled    = true
names_file = %q

[[site]]
hosts     = ["*"]
on_demand = true
to        = %q
`, n.https, n.http, f.path("host"), f.bucket.url, f.path(fmt.Sprintf("copy%d", n.n)), f.path("kek"), "unix://"+f.path(fmt.Sprintf("admin%d.sock", n.n)),
		directory, f.path("root.pem"), f.path("names"), f.upstream.URL)
}

func (f *fleet) up(n *node) {
	f.t.Helper()
	n.process = f.startProcessWith(f.path(n.file()), f.bucket.env...)
	f.t.Cleanup(func() { n.process.kill() })
}

// logsOf returns what the running processes say of a name.
func (f *fleet) logsOf(name string) string {
	var b strings.Builder
	for _, n := range f.nodes {
		for line := range strings.Lines(n.process.log.String()) {
			if strings.Contains(line, name) {
				fmt.Fprintf(&b, "node %d: %s", n.n, line)
			}
		}
	}
	return b.String()
}

// balance forwards connections to a random node that takes them.
func (f *fleet) balance(addr string, of func(*node) string) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	var conns sync.WaitGroup
	f.t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer in.Close()
				for _, i := range rand.Perm(len(f.nodes)) {
					out, err := net.DialTimeout("tcp", of(f.nodes[i]), time.Second)
					if err != nil {
						continue
					}
					defer out.Close()
					_ = in.SetDeadline(time.Now().Add(time.Minute))
					_ = out.SetDeadline(time.Now().Add(time.Minute))
					conns.Go(func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() })
					_, _ = io.Copy(in, out)
					return
				}
			})
		}
	})
}

// handshakeAt opens a connection to one node.
func (f *fleet) handshakeAt(addr, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: f.roots}}).DialContext(ctx, "tcp", addr)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// bucket is a real object store on loopback.
type bucket struct {
	t      *testing.T
	url    string // of a proxy that counts
	behind string // of the store itself
	seen   requests
	dir    string
	env    []string
	cmd    *exec.Cmd
}

func startBucket(t *testing.T) *bucket {
	b := &bucket{t: t, dir: t.TempDir(), behind: "http://" + freeAddr(t)}
	b.url = b.seen.front(t, b.behind)
	b.env = []string{"AWS_ACCESS_KEY_ID=testkey", "AWS_SECRET_ACCESS_KEY=testsecret", "AWS_REGION=us-east-1"}
	if err := os.Mkdir(filepath.Join(b.dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bucket) start() {
	b.cmd = exec.Command("versitygw", "--port", strings.TrimPrefix(b.behind, "http://"), "--region", "us-east-1", "--keep-alive", "--quiet", "posix", b.dir)
	b.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=testkey", "ROOT_SECRET_KEY=testsecret")
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("start versitygw, which .ci/peers.sh installs: %v", err)
	}
	eventually(b.t, "the object store answers", func() bool {
		res, err := http.Get(b.behind)
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil
	})
}

func (b *bucket) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

// TestPeerFleet_OrdersOncePerNameThoughNodesAreKilled lets kills cost an order each at most: one that the CA validates through the node that dies has failed.
// TestPeerFleet_AKillCostsNoOrder has the moments at which it must not.
func TestPeerFleet_OrdersOncePerNameThoughNodesAreKilled(t *testing.T) {
	f := newFleet(t, 3)
	names := 40
	if os.Getenv("FULL") != "" {
		names = 200
	}
	begin, kills := time.Now(), 0
	killing, stop := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killer.Go(func() { // every few seconds one node dies and comes back
		for killing.Err() == nil {
			select {
			case <-killing.Done():
				return
			case <-time.After(2 * time.Second):
			}
			n := f.nodes[rand.IntN(len(f.nodes))]
			n.process.kill()
			kills++
			n.process = f.startProcessWith(f.path(n.file()), f.bucket.env...)
		}
	})
	var wg sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range names {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			name := fmt.Sprintf("n%03d.test", i)
			for deadline := time.Now().Add(2 * time.Minute); f.handshakeAt(f.lodge.https, name) != nil; time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Errorf("%s never came up:\n%s", name, f.logsOf(name))
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	stop()
	killer.Wait()
	t.Logf("%d names up in %v with %d kills; requests to the bucket: %v", names, took, kills, f.bucket.seen.total())
	more := 0
	for i := range names {
		name := fmt.Sprintf("n%03d.test", i)
		for _, n := range f.nodes {
			if err := f.handshakeAt(n.https, name); err != nil {
				t.Errorf("node %d does not serve %s: %v", n.n, name, err)
			}
		}
		if got := f.orders.names[name]; got != 1 {
			t.Logf("%d orders for %s", got, name)
			more += got - 1
		}
	}
	if more < 0 || more > kills {
		t.Errorf("%d orders more than names, after %d kills", more, kills)
	}
}

// TestPeerFleet_AKillCostsNoOrder kills the node that issues at each of its writes to the bucket, and where they have not happened
// yet. The name comes up at another node with the same order.
func TestPeerFleet_AKillCostsNoOrder(t *testing.T) {
	f := newFleet(t, 2)
	for i, step := range []struct {
		method, object string
		done           bool
	}{
		{"PUT", "/pending/", false}, {"PUT", "/pending/", true},
		{"PUT", "/orders/", false}, {"PUT", "/orders/", true}, // the former is found in the CA's list
		{"PUT", "/challenges/", false}, {"PUT", "/challenges/", true},
		{"DELETE", "/challenges/", false}, {"DELETE", "/challenges/", true},
		{"PUT", "/certs/", false}, {"PUT", "/certs/", true},
		{"DELETE", "/orders/", false}, {"DELETE", "/orders/", true},
		{"DELETE", "/pending/", false}, {"DELETE", "/pending/", true},
	} {
		name := fmt.Sprintf("step%d.test", i)
		first, second := f.nodes[0], f.nodes[1]
		killed := make(chan struct{})
		var once sync.Once
		f.bucket.seen.tell(func(r *http.Request, done bool) (lost bool) {
			if r.Method == step.method && strings.Contains(strings.TrimPrefix(r.URL.Path, "/certs"), step.object) && done == step.done {
				once.Do(func() {
					first.process.kill()
					lost = true
					close(killed)
				})
			}
			return lost
		})
		_ = f.handshakeAt(first.https, name) // it may be answered before the kill, or not
		select {
		case <-killed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%v: no such request, of %v:\n%s", step, f.bucket.seen.total(), f.logsOf(name))
		}
		f.bucket.seen.tell(nil)
		if err := f.handshakeAt(second.https, name); err != nil {
			t.Errorf("%v: %v\n%s", step, err, f.logsOf(name))
		}
		f.orders.mu.Lock()
		got := f.orders.names[name]
		f.orders.mu.Unlock()
		if got != 1 {
			t.Errorf("%v: %d orders\n%s", step, got, f.logsOf(name))
		}
		first.process = f.startProcessWith(f.path(first.file()), f.bucket.env...)
	}
}

func TestPeerFleet_ServesWhatItKnowsWhileTheBucketIsAway(t *testing.T) {
	f := newFleet(t, 2)
	for _, n := range f.nodes {
		if err := f.handshakeAt(n.https, "seen.test"); err != nil {
			t.Fatal(err)
		}
	}
	f.bucket.stop()
	n := f.nodes[0]
	n.process.kill() // also over a restart, from the local copy
	f.up(n)
	if err := f.handshakeAt(n.https, "seen.test"); err != nil {
		t.Errorf("a seen name while the bucket is away: %v", err)
	}
	begin := time.Now()
	if err := f.handshakeAt(n.https, "new.test"); err == nil || time.Since(begin) > 15*time.Second {
		t.Errorf("a new name while the bucket is away: %v after %v; want a quick failure", err, time.Since(begin))
	}
	if got := f.orders.names["new.test"]; got != 0 {
		t.Errorf("%d orders without storage", got)
	}
	f.bucket.start()
	back := time.Now()
	eventually(t, "a new name after the bucket's return", func() bool { return f.handshakeAt(n.https, "new.test") == nil })
	if took := time.Since(back); took > 40*time.Second {
		t.Errorf("normal %v after the bucket's return; want seconds", took)
	}
}

func TestPeerFleet_ResumesSessionsAtAnyNodeAndTakesTheKeysWhenTheBucketReturns(t *testing.T) {
	f := newFleet(t, 2)
	a, b := f.nodes[0], f.nodes[1]
	_, session, err := visit(a.https, "seen.test", tls.VersionTLS13, nil)
	if err != nil {
		t.Fatal(err)
	}
	resumesAt := func(n *node) bool {
		resumed, _, err := visit(n.https, "seen.test", tls.VersionTLS13, session)
		return err == nil && resumed
	}
	if !resumesAt(b) {
		t.Error("the ticket of one node is worth nothing at the other")
	}
	f.bucket.stop()
	b.process.kill()
	f.up(b)
	if resumesAt(b) {
		t.Error("a node that cannot have the keys took a ticket")
	}
	f.bucket.start()
	eventually(t, "the node has the keys after the bucket's return", func() bool { return resumesAt(b) })
}
