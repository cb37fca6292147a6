//go:build peers

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// haproxyOfReadme starts HAProxy with the configuration that the README shows, at the fleet's addresses.
func haproxyOfReadme(f *fleet, metrics []string) {
	f.t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		f.t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```haproxy\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		f.t.Fatal("the README shows no configuration of HAProxy")
	}
	config := string(block[1])
	for from, to := range map[string]string{
		"bind :443\n": "bind " + f.lodge.https + "\n", "bind :80\n": "bind " + f.lodge.http + "\n",
		"10.0.0.11:443 port 9181": f.nodes[0].https + " port " + portOfAddr(metrics[0]), "10.0.0.12:443 port 9181": f.nodes[1].https + " port " + portOfAddr(metrics[1]),
		"10.0.0.11:80 port 9181": f.nodes[0].http + " port " + portOfAddr(metrics[0]), "10.0.0.12:80 port 9181": f.nodes[1].http + " port " + portOfAddr(metrics[1]),
	} {
		if !strings.Contains(config, from) {
			f.t.Fatalf("the README's HAProxy has no %q", from)
		}
		config = strings.ReplaceAll(config, from, to)
	}
	f.write("haproxy.cfg", config)
	out := &syncBuffer{}
	cmd := exec.Command("haproxy", "-db", "-f", f.path("haproxy.cfg"))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		f.t.Fatalf("start haproxy, which .ci/peers.sh installs: %v", err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Logf("haproxy:\n%s", out)
		}
	})
}

func portOfAddr(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func TestPeerFleet_BehindTheHAProxyOfTheReadme(t *testing.T) {
	metrics := []string{freeAddr(t), freeAddr(t)}
	f := newFleetBehind(t, 2, func(f *fleet) { haproxyOfReadme(f, metrics) }, func(n *node, config string) string {
		config = strings.Replace(config, "[listen]\n", "[listen]\nproxy_protocol = \"v2\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n", 1)
		return strings.Replace(config, `metrics = ""`, fmt.Sprintf("metrics = \"\"\nready = %q", metrics[n.n]), 1)
	})
	through := func(name string) func() bool {
		return func() bool { return f.handshakeAt(f.lodge.https, name) == nil }
	}
	for i := range 5 {
		eventually(t, "a new name through the balancer, which the CA validates through it too", through(fmt.Sprintf("lb%d.test", i)))
	}
	f.nodes[0].process.kill()
	for i := range 5 {
		eventually(t, "a name after one node died", through(fmt.Sprintf("lb%d.test", i)))
	}
	eventually(t, "a new name after one node died", through("late.test"))
	f.up(f.nodes[0])
	if err := f.nodes[1].process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a name after the other node was told to end", through("late.test"))
	for name, n := range f.orders.names {
		if n != 1 {
			t.Errorf("%d orders for %s", n, name)
		}
	}
}
