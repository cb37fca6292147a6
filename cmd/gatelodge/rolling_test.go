//go:build peers

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
)

// haproxyConf balances TCP over two nodes, tells them who the client is, and asks /readyz. It tries the other node where one cannot be connected to.
const haproxyConf = `
defaults
	mode tcp
	timeout connect 3s
	timeout client 1m
	timeout server 1m
	retries 2
	option redispatch

listen https
	bind %s
	balance roundrobin
	option httpchk GET /readyz
	default-server inter 200ms fall 2 rise 1 check send-proxy-v2
	server a %s port %s
	server b %s port %s
`

// TestPeerHAProxy_RestartsNodesUnderLoadWithoutALostRequest drains and restarts two nodes in turn while clients come on new connections, and on
// connections that they keep, over HTTP/1.1 and HTTP/2.
func TestPeerHAProxy_RestartsNodesUnderLoadWithoutALostRequest(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start() // gets the certificate, and keeps the storage that the nodes share
	if _, err := l.handshake("rolling.test"); err != nil {
		t.Fatal(err)
	}
	l.halt()
	front := freeAddr(t)
	var https, ready, conf [2]string
	for i := range https {
		https[i], ready[i] = freeAddr(t), freeAddr(t)
		_, ready[i], _ = strings.Cut(ready[i], ":")
		conf[i] = fmt.Sprintf("node%d.toml", i)
		l.write(conf[i], fmt.Sprintf(`
[listen]
https = [%q]
http  = []
proxy_protocol      = "v2"
proxy_protocol_from = ["127.0.0.0/8"]

[storage]
path = %q

[admin]
listen  = ""
metrics = ""
ready   = "127.0.0.1:%s"

[log]
format = "text"
access = "off"

[[ca]]
name      = "test"
directory = %q
roots     = [%q]

[[site]]
hosts = ["rolling.test"]
to    = %q
`, https[i], l.path("storage"), ready[i], l.ca.DirectoryURL(), l.path("root.pem"), l.upstream.URL))
	}
	nodes := [2]*process{l.startProcessWith(l.path(conf[0])), l.startProcessWith(l.path(conf[1]))}
	t.Cleanup(func() {
		for _, n := range nodes {
			n.kill()
		}
	})
	l.write("haproxy.cfg", fmt.Sprintf(haproxyConf, front, https[0], ready[0], https[1], ready[1]))
	balancer := exec.CommandContext(t.Context(), "haproxy", "-db", "-f", l.path("haproxy.cfg"))
	if err := balancer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = balancer.Process.Kill(), balancer.Wait() })
	l.https = front
	eventually(t, "an answer through the balancer", func() bool { _, err := l.get("rolling.test"); return err == nil })

	ctx, stop := context.WithCancel(t.Context())
	var answered, lost atomic.Int64
	var clients sync.WaitGroup
	for i := range 12 {
		c := l.rollingClient(i%2 == 0, i%3 == 0)
		clients.Go(func() {
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				if err := once(c); err == nil {
					answered.Add(1)
				} else {
					lost.Add(1)
					t.Errorf("lost: %v", err)
				}
				time.Sleep(5 * time.Millisecond) // a steady load, not a flood
			}
		})
	}
	for round := range 4 {
		time.Sleep(2 * time.Second) // HAProxy has to ask a node some times, and find the other one again, before it leaves: inter 200ms, rise 1
		n := nodes[round%2]
		before := answered.Load()
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := n.cmd.Wait(); err != nil {
			t.Errorf("round %d: the node ended with %v:\n%s", round, err, n.log)
		}
		nodes[round%2] = l.startProcessWith(l.path(conf[round%2]))
		eventually(t, "requests are answered meanwhile", func() bool { return answered.Load() > before+100 })
	}
	stop()
	clients.Wait()
	t.Logf("%d requests answered, %d lost, over four restarts", answered.Load(), lost.Load())
}
