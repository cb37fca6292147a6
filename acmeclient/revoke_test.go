package acmeclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const pathRevoke = "/revoke-cert"

// withKey makes a request and keeps its key.
func withKey(t *testing.T, names ...string) (Request, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return requestFor(t, key, names...), key
}

// signers records whether revocations are signed by the account ("kid") or by the certificate's key ("jwk").
func (p *pebble) signers() func() []string {
	headers := p.protected(pathRevoke)
	return func() (by []string) {
		for _, h := range headers() {
			if strings.Contains(h, `"kid"`) {
				by = append(by, "account")
			} else {
				by = append(by, "key")
			}
		}
		return by
	}
}

func TestRevoke_ByAccountElseByKey(t *testing.T) {
	refuse := problemReply(pathRevoke, 403, "unauthorized", "not yours")
	for _, tt := range []struct {
		name   string
		reason int
		key    bool
		faults []fault
		by     []string
		fails  bool
	}{
		{"by the account", ReasonSuperseded, false, nil, []string{"account"}, false},
		{"the key is not needed", ReasonUnspecified, true, nil, []string{"account"}, false},
		{"a compromised key shows itself", ReasonKeyCompromise, true, nil, []string{"key"}, false},
		{"a compromised key that is not at hand", ReasonKeyCompromise, false, nil, []string{"account"}, false},
		{"the account is refused", ReasonCessationOfOperation, true, []fault{times(1, refuse)}, []string{"account", "key"}, false},
		{"the key is refused", ReasonKeyCompromise, true, []fault{times(1, refuse)}, []string{"key", "account"}, false},
		{"both are refused", ReasonUnspecified, true, []fault{refuse}, []string{"account", "key"}, true},
		{"the account is refused and there is no key", ReasonUnspecified, false, []fault{refuse}, []string{"account"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{})
			r, key := withKey(t, "www.example.test")
			cert := obtain(t, c, r)
			by := p.signers()
			p.fail(append(p.faults, tt.faults...)...)
			var signer crypto.Signer
			if tt.key {
				signer = key
			}
			err := c.Revoke(t.Context(), cert.Chain, signer, tt.reason)
			if tt.fails != (err != nil) || !slices.Equal(by(), tt.by) {
				t.Errorf("error %v, signed by %v, wanted %v", err, by(), tt.by)
			}
			var p2 *Problem
			if tt.fails && (!errors.As(err, &p2) || p2.Advice == "" || strings.Contains(p2.Advice, "deactivated")) {
				t.Errorf("error does not help: %v", err)
			}
			p.fail()
			if err := c.Revoke(t.Context(), cert.Chain, signer, tt.reason); err != nil { // revoked already, or now
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestRevoke_WithoutAnAccountMakesNone(t *testing.T) {
	c, p, n, _ := setup(t, pebbleOptions{})
	r, key := withKey(t, "www.example.test")
	cert := obtain(t, c, r)
	stranger := newClient(t, p, n, n.responder.store, func(cfg *Config) { cfg.Name = "pebble-2" })
	before := p.count(pathAccount)
	if err := stranger.Revoke(t.Context(), cert.Chain, nil, ReasonUnspecified); !errors.Is(err, errNoAccount) {
		t.Errorf("without a key: %v", err)
	}
	if err := stranger.Revoke(t.Context(), cert.Chain, key, ReasonUnspecified); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if got := p.count(pathAccount) - before; got != 0 {
		t.Errorf("%d accounts made", got)
	}
}

func TestRevoke_RefusesWhatTheCAWouldRefuse(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	r, key := withKey(t, "www.example.test")
	cert := obtain(t, c, r)
	_, otherKey := withKey(t, "www.example.test")
	before := p.count()
	for name, revoke := range map[string]func() error{
		"a reason for CAs only": func() error { return c.Revoke(t.Context(), cert.Chain, key, 2) },
		"a reason that is none": func() error { return c.Revoke(t.Context(), cert.Chain, key, 7) },
		"another key":           func() error { return c.Revoke(t.Context(), cert.Chain, otherKey, 0) },
		"no certificate":        func() error { return c.Revoke(t.Context(), nil, key, 0) },
		"garbage":               func() error { return c.Revoke(t.Context(), [][]byte{{1}}, key, 0) },
	} {
		if err := revoke(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := p.count() - before; got != 0 {
		t.Errorf("%d requests", got)
	}
}

func TestRevoke_ACAThatIsDownIsAskedOneWayOnly(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	r, key := withKey(t, "www.example.test")
	cert := obtain(t, c, r)
	by := p.signers()
	p.fail(append(p.faults, reply(pathRevoke, http.StatusBadGateway, "text/html", "<html>"))...)
	err := c.Revoke(t.Context(), cert.Chain, key, ReasonUnspecified)
	problemOf(t, err, ScopeCA)
	if slices.Contains(by(), "key") {
		t.Errorf("signed by %v", by())
	}
}
