package acmeclient

import (
	"slices"
	"testing"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

const pathMyAccount = "/my-account/"

func TestAccount_ContactFollowsTheConfiguration(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	if _, err := c.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, contact := range [][]string{{"mailto:new@example.test"}, nil} {
		changed := newClient(t, p, n, store, func(cfg *Config) { cfg.Contact = contact })
		before := p.count(pathMyAccount)
		acct, err := changed.Account(t.Context())
		if err != nil || !slices.Equal(acct.Contact, contact) || p.count(pathMyAccount)-before != 1 {
			t.Errorf("account is %+v, error %v, after %d updates", acct, err, p.count(pathMyAccount)-before)
		}
		again := newClient(t, p, n, store, func(cfg *Config) { cfg.Contact = contact })
		if _, err := again.Account(t.Context()); err != nil || p.count(pathMyAccount)-before != 1 {
			t.Errorf("error %v, after %d updates; one is enough", err, p.count(pathMyAccount)-before)
		}
	}
}

func TestAccount_WorksThoughTheCADoesNotTakeTheNewContact(t *testing.T) {
	for name, f := range map[string]fault{
		"refused": problemReply(pathMyAccount, 400, "invalidContact", "no such domain"),
		"down":    problemReply(pathMyAccount, 503, "serverInternal", "down"),
	} {
		t.Run(name, func(t *testing.T) {
			c, p, n, store := setup(t, pebbleOptions{})
			if _, err := c.Account(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.fail(f)
			changed := newClient(t, p, n, store, func(cfg *Config) { cfg.Contact = []string{"mailto:new@example.test"} })
			obtain(t, changed, newRequest(t, "www.example.test"))
			if got := storedRecord(t, c, store).Contact; !slices.Equal(got, c.cfg.Contact) {
				t.Errorf("contact is %v", got)
			}
		})
	}
}

func TestAccount_NotesNewTermsAndGoesOn(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	if _, err := c.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	const terms = "https://ca.test/terms-2"
	p.rewrite(editDirectory(func(dir map[string]any) { dir["meta"].(map[string]any)["termsOfService"] = terms }))
	for range 2 {
		obtain(t, newClient(t, p, n, store), newRequest(t, "www.example.test"))
		if got := storedRecord(t, c, store).Terms; got != terms {
			t.Errorf("terms are %q", got)
		}
	}
}

func TestAccount_WorksThoughTheNewContactCannotBeStored(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory())
	n := newNode(t, store)
	p := newPebble(t, n, pebbleOptions{})
	if _, err := newClient(t, p, n, store).Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	contact := []string{"mailto:new@example.test"}
	for _, f := range []storagetest.Fault{
		{Op: storagetest.PutIf, Prefix: "acme/pebble/account"},
		{Op: storagetest.Lease},
		{}, // healed
	} {
		store.Set()
		if f.Op != "" {
			store.Set(f)
		}
		c := newClient(t, p, n, store, func(cfg *Config) { cfg.Contact = contact })
		obtain(t, c, newRequest(t, "www.example.test"))
		if got := storedRecord(t, c, store).Contact; slices.Equal(got, contact) != (f.Op == "") {
			t.Errorf("with fault %q: contact is %v", f.Op, got)
		}
	}
}
