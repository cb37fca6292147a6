package acmeclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"

	"golang.org/x/crypto/acme"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// foreignKeys are the kinds of account keys that other programs make: certmagic P-256, certbot RSA of 2048 bits, Traefik of 4096.
func foreignKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err2 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsa2048, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"P-256": p256, "P-384": p384, "RSA": rsa2048}
}

func pkcs8(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestImportAccount_IsUsedAndNoNewOneRegistered(t *testing.T) {
	for kind, key := range foreignKeys(t) {
		t.Run(kind, func(t *testing.T) {
			n := newNode(t, storage.NewMemory())
			p := newParallelPebble(t, n)
			other := &acme.Client{Key: key, DirectoryURL: p.url, HTTPClient: &http.Client{Transport: newClient(t, p, n, storage.NewMemory()).wire.http.Transport}}
			made, err := other.Register(t.Context(), &acme.Account{Contact: []string{"mailto:ops@example.test"}}, acme.AcceptTOS)
			if err != nil {
				t.Fatal(err)
			}
			for _, known := range []string{made.URI, "", "https://acme-v01.example/reg/1"} {
				store := storage.NewMemory()
				err := ImportAccount(t.Context(), store, "pebble", ForeignAccount{Key: pkcs8(t, key), URL: known, Contact: made.Contact, Directory: p.url})
				if err != nil {
					t.Fatal(err)
				}
				node := newNode(t, store)
				registrations := p.count(pathAccount)
				c := newClient(t, p, node, store)
				acct, err := c.Account(t.Context())
				if err != nil || acct.URL != made.URI {
					t.Fatalf("the account is %v, %v; want %s", acct, err, made.URI)
				}
				if asked := p.count(pathAccount) - registrations; known == made.URI && asked != 0 {
					t.Errorf("the CA was asked %d times for an account that is known by its URL", asked)
				}
			}
			store := n.responder.store
			if err := ImportAccount(t.Context(), store, "pebble", ForeignAccount{Key: pkcs8(t, key), URL: made.URI, Directory: p.url}); err != nil {
				t.Fatal(err)
			}
			obtain(t, newClient(t, p, n, store), newRequest(t, "imported.example.test"))
		})
	}
}

func TestImportAccount_NeverReplacesAnAccountAndTakesNoOutageForAnAbsence(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory())
	keys := foreignKeys(t)
	mine := ForeignAccount{Key: pkcs8(t, keys["P-256"]), URL: "https://ca.test/acct/1", Directory: "https://ca.test/dir"}
	store.Set(storagetest.Fault{Op: storagetest.Get})
	if err := ImportAccount(t.Context(), store, "ca", mine); !errors.Is(err, storagetest.ErrInjected) || store.Count(storagetest.PutIf, "") > 0 {
		t.Errorf("during an outage: %v", err)
	}
	store.Set()
	for range 2 {
		if err := ImportAccount(t.Context(), store, "ca", mine); err != nil {
			t.Errorf("the same account: %v", err)
		}
	}
	if err := ImportAccount(t.Context(), store, "ca", ForeignAccount{Key: pkcs8(t, keys["RSA"])}); !errors.Is(err, ErrAccountExists) {
		t.Errorf("another account: %v", err)
	}
	store.Set(storagetest.Fault{Op: storagetest.PutIf, Err: storage.ErrConflict})
	if err := ImportAccount(t.Context(), store, "ca2", mine); !errors.Is(err, ErrAccountExists) {
		t.Errorf("an account that was made meanwhile: %v", err)
	}
}

func TestImportAccount_RefusesKeysThatNoCATakes(t *testing.T) {
	p224, err1 := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, edwards, err2 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[string][]byte{"P-224": pkcs8(t, p224), "Ed25519": pkcs8(t, edwards), "no key": []byte("x"), "nothing": nil} {
		store := storage.NewMemory()
		if err := ImportAccount(t.Context(), store, "ca", ForeignAccount{Key: der}); err == nil {
			t.Errorf("%s was taken", kind)
		}
		if _, _, err := store.Get(t.Context(), "acme/ca/account"); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: stored: %v", kind, err)
		}
	}
}
