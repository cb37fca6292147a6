package acmeclient

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatelodge/storage"
)

// pathOrderList is where Pebble lists an account's orders.
const pathOrderList = "/list-orderz/"

// placeUnseen places orders for the names whose records are lost with the process.
func placeUnseen(t *testing.T, p *pebble, n *node, store *storage.Memory, names ...string) (requests []Request) {
	t.Helper()
	for _, name := range names {
		r := newRequest(t, name)
		c := newClient(t, p, n, store)
		p.fail(func(w http.ResponseWriter, r *http.Request) bool { // it dies as soon as it has placed it
			if strings.HasPrefix(r.URL.Path, pathAuthz) {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return false
		})
		if _, err := c.Obtain(t.Context(), r); err == nil {
			t.Fatal("it did not fail")
		}
		c.Close()
		if err := store.Delete(t.Context(), newOrderBook("pebble", store, c.log).name(r.CSR)); err != nil {
			t.Fatal(err)
		}
		requests = append(requests, r)
	}
	p.fail()
	return requests
}

func TestStrays_AnOrderThatOnlyTheCAKnowsIsContinued(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	requests := placeUnseen(t, p, n, store, "a.example.test", "b.example.test", "c.example.test", "d.example.test", "e.example.test")
	successor := newClient(t, p, n, store)
	for _, r := range requests {
		r.Again = true
		obtain(t, successor, r)
	}
	if got := p.count("POST " + pathOrder); got != 5 {
		t.Errorf("%d orders for 5 names", got)
	}
	if got := p.count("POST " + pathOrderList); got < 2 || got > 2*len(requests) { // three orders each
		t.Errorf("%d pages of the list were read", got)
	}
}

func TestStrays_AreNotLookedForWithoutReason(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	obtain(t, c, newRequest(t, "a.example.test"))
	r := placeUnseen(t, p, n, store, "b.example.test")[0]
	obtain(t, newClient(t, p, n, store), r) // nobody had tried with it, says who asks
	if got := p.count("POST " + pathMyAccount); got != 0 {
		t.Errorf("the account was read %d times", got)
	}
	if got := p.count("POST " + pathOrder); got != 3 {
		t.Errorf("%d orders", got)
	}
}

// What looks lost may be the order of the names' other certificate.
func TestStrays_NoneIsTakenWhereNamesHaveTwoCertificates(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	r := placeUnseen(t, p, n, store, "a.example.test")[0]
	r.Again, r.Shared = true, true
	obtain(t, newClient(t, p, n, store), r)
	if got := p.count("POST " + pathOrder); got != 2 || p.count("POST "+pathMyAccount) != 0 {
		t.Errorf("%d orders, the account was read %d times", got, p.count("POST "+pathMyAccount))
	}
}

func TestStrays_AreLookedForWhenTheAnswerWasLost(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	lost := false
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathOrder && resp.Code == http.StatusCreated && !lost {
			lost = true
			panic(http.ErrAbortHandler)
		}
	})
	r := newRequest(t, "a.example.test")
	if _, err := c.Obtain(t.Context(), r); err == nil {
		t.Fatal("no error of the lost answer")
	}
	obtain(t, c, r)
	if got := p.count("POST " + pathOrder); got != 1 {
		t.Errorf("%d orders", got)
	}
	if got := p.count("POST " + pathOrderList); got != 1 {
		t.Errorf("%d looks at the list", got)
	}
}

// Boulder keeps no list. It is not asked for one with each order.
func TestStrays_ACAWithoutAListIsAskedForItOnce(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	requests := placeUnseen(t, p, n, store, "a.example.test", "b.example.test")
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if !strings.HasPrefix(r.URL.Path, pathMyAccount) {
			return
		}
		var acct map[string]any
		if err := json.Unmarshal(resp.Body.Bytes(), &acct); err != nil || acct["orders"] == nil {
			t.Errorf("the account is %s: %v", resp.Body, err)
		}
		delete(acct, "orders")
		resp.Body.Reset()
		_ = json.NewEncoder(resp.Body).Encode(acct)
		resp.Header().Set("Content-Length", "")
	})
	successor := newClient(t, p, n, store)
	for _, r := range requests {
		r.Again = true
		obtain(t, successor, r)
	}
	if got := p.count("POST " + pathMyAccount); got != 1 {
		t.Errorf("the account was read %d times", got)
	}
	if got := p.count("POST " + pathOrder); got != 4 {
		t.Errorf("%d orders", got)
	}
}

func TestStrays_AListThatCannotBeReadHoldsNothingUp(t *testing.T) {
	for name, fault := range map[string]fault{
		"error": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, pathOrderList) {
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}
			return false
		},
		"refusal": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, pathMyAccount) {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, p, n, store := setup(t, pebbleOptions{})
			r := placeUnseen(t, p, n, store, "a.example.test")[0]
			p.fail(fault)
			r.Again = true
			obtain(t, newClient(t, p, n, store), r)
			if got := p.count("POST " + pathOrder); got != 2 {
				t.Errorf("%d orders", got)
			}
		})
	}
}

// What is down is asked for one thing at a time: nothing is ordered where the account cannot be read.
func TestStrays_NothingIsOrderedOfACAThatIsDown(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	r := placeUnseen(t, p, n, store, "a.example.test")[0]
	p.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, pathMyAccount) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	r.Again = true
	c := newClient(t, p, n, store)
	_, err := c.Obtain(t.Context(), r)
	problemAt(t, err, "pebble", ScopeCA)
	p.fail()
	obtain(t, c, r)
	if got := p.count("POST " + pathOrder); got != 1 {
		t.Errorf("%d orders", got)
	}
}

func TestStrays_WhatIsRememberedIsBounded(t *testing.T) {
	s := newStrays()
	now := time.Now()
	for i := range maxDoubts + 10 {
		s.lostAnswer(string(rune(i)), now)
		s.settle("other" + string(rune(i)))
	}
	if len(s.doubts) > maxDoubts || len(s.settled) > maxDoubts {
		t.Errorf("%d doubts, %d settled", len(s.doubts), len(s.settled))
	}
}
