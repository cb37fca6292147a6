package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/certs/permission"
)

// trusting does a handshake of a client that checks nothing.
func (h *house) trusting(name string) (*x509.Certificate, error) {
	return hello(h.m, name, h.ca.pool(), func(cfg *tls.Config) { cfg.InsecureSkipVerify = true })
}

func TestStandIn_IsServedOnlyWhileTheFirstCertificateIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.StandIn, h.set.MaxWait = true, 3*time.Second
		release := make(chan struct{})
		h.ca.script(func(ctx context.Context, _ *Request) error {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		h.open()
		began := time.Now()
		cert, err := h.trusting("new.example.com")
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it was served after %v, without waiting for max_wait", took)
		}
		if err != nil || cert.VerifyHostname("new.example.com") != nil || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
			t.Fatalf("stand-in is %v, %v", cert, err)
		}
		if h.has(certObject("new.example.com")) {
			t.Error("it is in storage")
		}
		close(release)
		synctest.Wait()
		h.must("new.example.com")
		h.wantIssued("new.example.com", 1)
	})
}

func TestStandIn_IsNotForNamesThatGetNoCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.StandIn, h.set.MaxWait = true, 3*time.Second
		h.gate.allow = func(name string) error {
			switch name {
			case "denied.example.com":
				return permission.ErrDenied
			case "slow.example.com": // nobody has permitted it when the time is up
				time.Sleep(time.Minute)
			}
			return nil
		}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		for _, name := range []string{"denied.example.com", "slow.example.com", "bad.example.com", "bad.example.com", "localhost"} {
			if cert, err := h.trusting(name); err == nil {
				t.Errorf("%s is served with %v", name, cert.Subject)
			}
		}
		time.Sleep(2 * time.Minute)
	})
}

func TestStandIn_ServesWhileEveryCAFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.StandIn, h.set.MaxWait = true, 3*time.Second
		h.ca.failWith(errors.New("the CA is down"))
		h.open()
		for range 3 {
			if cert, err := h.trusting("new.example.com"); err != nil || cert.VerifyHostname("new.example.com") != nil {
				t.Fatalf("%v, %v", cert, err)
			}
		}
		h.ca.failWith(nil)
		time.Sleep(time.Minute)
		h.must("new.example.com")
	})
}

func TestStandIn_HasOneKeyAndABound(t *testing.T) {
	m := newHouse(t).open()
	var first *tls.Certificate
	for i := range standInsKept + 10 {
		cert, err := m.standIns.of(fmt.Sprintf("n%d.example.com", i), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = cert
		}
		if !first.PrivateKey.(*ecdsa.PrivateKey).Equal(cert.PrivateKey) || !m.IsStandIn(cert) {
			t.Fatal("it has a key of its own")
		}
	}
	n := 0
	m.standIns.made.Each(func(string, *tls.Certificate) { n++ })
	if n != standInsKept {
		t.Errorf("%d are kept", n)
	}
	again, err := m.standIns.of(first.Leaf.DNSNames[0], time.Now())
	if err != nil || !m.IsStandIn(again) || m.IsStandIn(nil) || m.IsStandIn(&tls.Certificate{}) {
		t.Errorf("stand-ins are not told from others: %v", err)
	}
	ip, err := m.standIns.of("192.0.2.1", time.Now())
	if err != nil || ip.Leaf.VerifyHostname("192.0.2.1") != nil {
		t.Errorf("address: %v", err)
	}
}
