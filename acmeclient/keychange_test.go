package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

const pathKeyChange = "/rollover-account-key"

// storedRecord reads the account's record.
func storedRecord(t *testing.T, c *Client, store storage.Store) accountRecord {
	t.Helper()
	data, _, err := store.Get(t.Context(), c.accountName())
	if err != nil {
		t.Fatal(err)
	}
	var record accountRecord
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	return record
}

func TestRollKey_KeepsTheAccountAndTheFleetFollows(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	other := newClient(t, p, n, store)
	before, err := other.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	oldKey := other.accounts.get().key
	after, err := c.RollKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.URL != before.URL || sameKey(c.accounts.get().key, oldKey) {
		t.Errorf("account was %s, is %s; same key: %v", before.URL, after.URL, sameKey(c.accounts.get().key, oldKey))
	}
	if record := storedRecord(t, c, store); record.Pending != nil {
		t.Error("a pending key is left")
	}
	obtain(t, c, newRequest(t, "a.example.test"))
	orders := p.orders()
	obtain(t, other, newRequest(t, "b.example.test")) // it knows the old key only
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders for one certificate", got)
	}
	if !sameKey(other.accounts.get().key, c.accounts.get().key) {
		t.Error("the other node did not take the new key")
	}
}

func TestRollKey_AnOrderInProgressOfANodeWithTheOldKeyIsContinued(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	r := newRequest(t, "www.example.test")
	p.fail(problemReply(pathCert, 500, "serverInternal", "boom"))
	_, err := c.Obtain(t.Context(), r)
	problemOf(t, err, ScopeCA)
	if _, err := newClient(t, p, n, store).RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.fail()
	orders := p.orders()
	obtain(t, c, r)
	if got := orders.get(); got != 0 {
		t.Errorf("%d orders placed anew", got)
	}
}

// TestRollKey_SurvivesACrashAtEachStep: afterwards the account works, by the key that the CA knows, whichever that is.
func TestRollKey_SurvivesACrashAtEachStep(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fault   fault                                    // of the key change
		rewrite func(crash func()) rewrite               // after it arrived
		store   storagetest.Fault                        // of the store
		crash   bool                                     // the process dies with the fault
		changed bool                                     // the CA knows the new key
		err     func(t *testing.T, c *Client, err error) // nil: none
	}{
		{name: "the CA refuses", fault: problemReply(pathKeyChange, 403, "unauthorized", "no"), err: wantStatus(403)},
		{name: "the CA does not do it", fault: problemReply(pathKeyChange, 501, "rejectedIdentifier", "not implemented"), err: wantStatus(501)}, // step-ca
		{name: "the CA fails", fault: problemReply(pathKeyChange, 500, "serverInternal", "boom"), err: wantStatus(500)},
		{name: "the connection is cut", fault: cut(pathKeyChange), err: wantStatus(0)},
		{name: "it arrives, the answer is lost", rewrite: func(func()) rewrite { return lose(pathKeyChange, nil) }, changed: true},
		{name: "it arrives, the process dies", rewrite: func(crash func()) rewrite { return lose(pathKeyChange, crash) }, crash: true, changed: true},
		{name: "the process dies before", crash: true},
		{name: "the pending key cannot be stored", store: storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account"}, err: wantInjected},
		{name: "the pending key is stored, but an error is answered", store: storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Applied: true}, err: wantInjected},
		{name: "the new key cannot be stored", store: storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Skip: 1}, changed: true, err: wantInjected},
		{name: "the new key is stored, but an error is answered", store: storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Skip: 1, Applied: true}, changed: true, err: wantInjected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := storagetest.NewFaulty(storage.NewMemory())
			n := newNode(t, store)
			p := newParallelPebble(t, n)
			c := newClient(t, p, n, store)
			before, err := c.Account(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			oldKey := c.accounts.get().key
			ctx, crash := context.WithCancel(t.Context())
			defer crash()
			faults := []fault{tt.fault}
			if tt.fault == nil {
				faults = nil
			}
			if tt.crash {
				faults = append(faults, dead(ctx, pathKeyChange, tt.rewrite == nil, crash))
			}
			p.fail(faults...)
			if tt.rewrite != nil {
				p.rewrite(tt.rewrite(crash))
			}
			if tt.store.Op != "" {
				store.Set(tt.store)
			}
			_, err = c.RollKey(ctx)
			switch {
			case tt.err != nil:
				tt.err(t, c, err)
			case tt.crash != (err != nil):
				t.Errorf("RollKey: %v", err)
			}
			p.fail()
			p.rewrite()
			store.Set()
			next := newClient(t, p, n, store)
			obtain(t, next, newRequest(t, "www.example.test"))
			now := next.accounts.get()
			if now.URL != before.URL || sameKey(now.key, oldKey) == tt.changed || now.Pending != nil {
				t.Errorf("account was %s, is %s; same key: %v, pending: %v", before.URL, now.URL, sameKey(now.key, oldKey), now.Pending != nil)
			}
			if record := storedRecord(t, c, store); record.Pending != nil {
				t.Error("a pending key is left")
			}
		})
	}
}

func wantStatus(status int) func(*testing.T, *Client, error) {
	return func(t *testing.T, _ *Client, err error) {
		t.Helper()
		var p *Problem
		if !errors.As(err, &p) || p.Status != status {
			t.Errorf("RollKey: %v, wanted is a Problem with status %d", err, status)
		}
	}
}

func wantInjected(t *testing.T, _ *Client, err error) {
	t.Helper()
	if !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("RollKey: %v", err)
	}
}

// lose turns the answer into an error after the CA did what was asked.
func lose(path string, then func()) rewrite {
	return func(r *http.Request, resp *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, path) && resp.Code == http.StatusOK { // and not a refused nonce
			resp.Code = 500
			if then != nil {
				then()
			}
		}
	}
}

// dead answers nothing once the process is dead, which it is at the request to the path if told to die there.
func dead(ctx context.Context, path string, dies bool, die func()) fault {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if dies && strings.HasPrefix(r.URL.Path, path) {
			die()
		}
		return ctx.Err() != nil
	}
}

func TestRollKey_NeedsAnEndpoint(t *testing.T) {
	c, p, _, store := setup(t, pebbleOptions{})
	p.rewrite(editDirectory(func(dir map[string]any) { delete(dir, "keyChange") }))
	_, err := c.RollKey(t.Context())
	var problem *Problem
	if !errors.As(err, &problem) || !strings.Contains(problem.Detail, "keyChange") {
		t.Errorf("RollKey: %v", err)
	}
	if record := storedRecord(t, c, store); record.Pending != nil {
		t.Error("a pending key is left")
	}
}

// editDirectory changes what the CA's directory says.
func editDirectory(edit func(dir map[string]any)) rewrite {
	return func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path != "/dir" {
			return
		}
		var dir map[string]any
		if json.Unmarshal(resp.Body.Bytes(), &dir) != nil {
			return
		}
		edit(dir)
		body, err := json.Marshal(dir)
		if err != nil {
			return
		}
		resp.Body.Reset()
		resp.Body.Write(body)
	}
}
