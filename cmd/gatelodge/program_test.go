package main

import (
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
)

func TestProgram_OrdersOnceForAThousandConcurrentHandshakes(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	n := 1000
	if testing.Short() {
		n = 100
	}
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range n {
		wg.Go(func() {
			if _, err := l.handshake("crowd.test"); err != nil {
				failed.Add(1)
				t.Logf("handshake: %v", err)
			}
		})
	}
	wg.Wait()
	if failed.Load() != 0 || l.orders("crowd.test") != 1 {
		t.Errorf("%d of %d handshakes failed with %d orders; want none and 1", failed.Load(), n, l.orders("crowd.test"))
	}
}

func TestProgram_RefusesADeniedNameAtOnceAndWithoutAnOrder(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("warm.test"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := l.handshake("denied.example")
	if took := time.Since(begin); err == nil || !strings.Contains(err.Error(), "unrecognized name") || took > 10*time.Second {
		t.Errorf("handshake for a denied name: %v after %v; want the alert unrecognized_name without a wait", err, took)
	}
	if n := l.orders("denied.example"); n != 0 {
		t.Errorf("%d orders for a denied name", n)
	}
}

func TestProgram_EndsAnOrderBeforeItRefusesConnections(t *testing.T) {
	asked, proceed := make(chan struct{}), make(chan struct{})
	l := newLodge(t, devca.Config{Fault: func(_ http.ResponseWriter, _ *http.Request, endpoint string) bool {
		if endpoint == "challenge" {
			close(asked)
			<-proceed // the validation begins when the program has been told to end
		}
		return false
	}})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	visit := make(chan error, 1)
	go func() { _, err := l.handshake("ordered.test"); visit <- err }()
	<-asked
	l.stop()
	eventually(t, "the program ends", l.program.readiness.draining.Load)
	for range 20 {
		conn, err := net.Dial("tcp", l.https)
		if err != nil {
			t.Fatalf("while the order is under way: %v", err)
		}
		_ = conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
	close(proceed)
	if err := <-visit; err != nil {
		t.Errorf("the handshake that waited for the order: %v", err)
	}
	l.halt()
	l.start()
	if _, err := l.handshake("ordered.test"); err != nil || l.orders("ordered.test") != 1 {
		t.Errorf("afterwards %v, with %d orders", err, l.orders("ordered.test"))
	}
}

func TestProgram_FailsFastWhileTheCAIsDownAndRecoversByItself(t *testing.T) {
	var down atomic.Bool
	l := newLodge(t, devca.Config{Fault: func(w http.ResponseWriter, _ *http.Request, endpoint string) bool {
		if endpoint == "newOrder" && down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	}})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("known.test"); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	for range 3 {
		begin := time.Now()
		if _, err := l.handshake("new.test"); err == nil || time.Since(begin) > 10*time.Second {
			t.Errorf("handshake while newOrder answers 500: %v after %v; want an error, and none of max_wait", err, time.Since(begin))
		}
		if _, err := l.handshake("known.test"); err != nil {
			t.Errorf("a name with a certificate was touched by the outage: %v", err)
		}
	}
	down.Store(false)
	back := time.Now()
	eventually(t, "a certificate for new.test after the CA's return", func() bool {
		_, err := l.handshake("new.test")
		return err == nil
	})
	if took := time.Since(back); took > 40*time.Second {
		t.Errorf("the name came up %v after the CA's return; one is tried every 8 s", took)
	}
}

func TestProgram_ServesStoredCertificatesAfterARestartWithoutAnOrder(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	first, err := l.handshake("kept.test")
	if err != nil {
		t.Fatal(err)
	}
	l.halt()
	if err := l.ca.Close(); err != nil { // a stored certificate needs nobody
		t.Fatal(err)
	}
	l.write("names", "# nobody is allowed any more\n")
	l.start()
	again, err := l.handshake("kept.test")
	if err != nil {
		t.Fatal(err)
	}
	if again.SerialNumber.Cmp(first.SerialNumber) != 0 || l.orders("kept.test") != 1 {
		t.Errorf("another certificate after the restart, %d orders", l.orders("kept.test"))
	}
}

func TestProgram_RenewsBeforeTheEndAndServesTheOldOneUntilThen(t *testing.T) {
	l := newLodge(t, devca.Config{Lifetime: 20 * time.Second})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	first, err := l.handshake("short.test")
	if err != nil {
		t.Fatal(err)
	}
	renewals := 0
	for last := first; renewals < 2; {
		leaf, err := l.handshake("short.test")
		if err != nil {
			t.Fatalf("after %d renewals: %v", renewals, err)
		}
		if leaf.SerialNumber.Cmp(last.SerialNumber) != 0 {
			renewals, last = renewals+1, leaf
		}
		if time.Since(first.NotBefore) > 2*time.Minute {
			t.Fatal("never renewed")
		}
		time.Sleep(100 * time.Millisecond) // a visitor every now and then
	}
}

// The same URL turns from v1 to v2, as Let's Encrypt's never did but private CAs do: the next renewal uses it, with the same account.
func TestProgram_RenewsOverV2WhatV1Issued(t *testing.T) {
	l := newLodge(t, devca.Config{Lifetime: 30 * time.Second, Protocols: devca.ProtocolsV1})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	first, err := l.handshake("moved.test")
	if err != nil {
		t.Fatal(err)
	}
	if n := l.ca.Stats(); n.Requests["new-cert"] == 0 || n.Requests["newOrder"] != 0 {
		t.Fatalf("the first certificate did not come over v1: %v", n.Requests)
	}
	l.ca.Upgrade()
	if _, err := l.program.probeCA(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	v1 := l.ca.Stats().Requests["new-cert"]
	eventually(t, "the certificate is renewed", func() bool {
		leaf, err := l.handshake("moved.test")
		return err == nil && leaf.SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if n := l.ca.Stats(); n.Requests["newOrder"] == 0 || n.Requests["new-cert"] != v1 || n.Accounts != 1 {
		t.Errorf("%d accounts, requests %v; want a renewal over v2 by the same account", n.Accounts, n.Requests)
	}
}

func TestProgram_KeepsTheOldConfigurationWhenTheNewOneIsBad(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if body, err := l.get("a.test"); err != nil || body != "hello a.test" {
		t.Fatal(body, err)
	}
	l.write("gatelodge.toml", "[[site]\nhosts = 1")
	if err := l.program.reload(); err == nil || !strings.Contains(err.Error(), "gatelodge.toml:1") {
		t.Errorf("reload of a broken file: %v; want an error that names the place", err)
	}
	if body, err := l.get("a.test"); err != nil || body != "hello a.test" {
		t.Error(body, err)
	}
	l.configure(l.ca.DirectoryURL(), "[[site]]\nhosts = [\"own.test\"]\nto = \"http://127.0.0.1:1\"\n")
	if err := l.program.reload(); err != nil {
		t.Fatal(err)
	}
	if body, err := l.get("own.test"); err == nil {
		t.Errorf("the new site has no upstream, but answered %q", body)
	}
}

// TestProgram_EitherOfTwoOnOneStorageAnswersTheChallenge: the CA asks the one that did not order.
func TestProgram_EitherOfTwoOnOneStorageAnswersTheChallenge(t *testing.T) {
	l, other := newLodge(t, devca.Config{}), newBareLodge(t)
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	other.roots = l.roots
	other.write("root.pem", string(l.ca.RootPEM()))
	other.configure(l.ca.DirectoryURL(), "")
	cfg, err := os.ReadFile(other.path("gatelodge.toml"))
	if err != nil {
		t.Fatal(err)
	}
	other.write("gatelodge.toml", strings.ReplaceAll(string(cfg), other.path("storage"), l.path("storage")))
	other.start()
	first, err := other.handshake("shared.test")
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.handshake("shared.test")
	if err != nil || second.SerialNumber.Cmp(first.SerialNumber) != 0 || l.orders("shared.test") != 1 {
		t.Errorf("%v, %d orders", err, l.orders("shared.test"))
	}
}
