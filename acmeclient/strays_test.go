package acmeclient

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
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
		p.fail(reply(pathAuthz, 503, "", "")) // it dies as soon as it has placed it
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
	if got := p.count("POST " + pathOrderList); got < 2 || got%2 != 0 { // three orders each
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
		"nonsense": reply(pathOrderList, 200, "", "<html>"),
		"silence":  reply(pathMyAccount, 200, "", ""),
		"refusal":  reply(pathMyAccount, 403, "", ""),
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
func TestStrayList_ServesForTenTimesAsLongAsItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := time.Now()
		time.Sleep(time.Second)
		l := strayList{began: time.Now()}
		time.Sleep(100 * time.Millisecond)
		l.ended = time.Now()
		has := func(in doubt) bool { return l.has(&attempt{began: time.Now()}, in) }
		time.Sleep(900 * time.Millisecond)
		if !has(doubt{}) {
			t.Error("it is read again after 0.9 s")
		}
		time.Sleep(200 * time.Millisecond)
		if has(doubt{}) {
			t.Error("what another process placed is looked for in a list of 1.1 s before we came")
		}
		if !has(doubt{sent: sent}) || has(doubt{sent: l.began}) {
			t.Error("what we placed is in any list that was begun afterwards, and in no other")
		}
		time.Sleep(strayAge)
		if has(doubt{sent: sent}) {
			t.Error("a list is used after ten seconds, when its orders may be others")
		}
	})
}

// In an outage nothing is ordered, and nothing forgotten.
func TestStrays_AreStillLookedForAfterAnOutage(t *testing.T) {
	for name, down := range map[string][]fault{
		"all":     {reply("/", 503, "", "")},
		"account": {reply(pathMyAccount, 503, "", "")},
		"list":    {reply(pathOrderList, 503, "", "")},
		"nonces":  {reply(pathNonce, 503, "", ""), reply(pathMyAccount, 503, "", "")},
	} {
		t.Run(name, func(t *testing.T) {
			_, p, n, store := setup(t, pebbleOptions{})
			r := placeUnseen(t, p, n, store, "a.example.test")[0]
			c := newClient(t, p, n, store)
			p.fail(down...)
			r.Again = true
			_, err := c.Obtain(t.Context(), r)
			problemAt(t, err, "pebble", ScopeCA)
			p.fail()
			obtain(t, c, newRequest(t, "other.example.test")) // which says nothing of the list
			r.Again = false                                   // it is ours now
			obtain(t, c, r)
			if got := p.count("POST " + pathOrder); got != 2 {
				t.Errorf("%d orders", got)
			}
		})
	}
}

// A CA whose list fails for ever gives certificates all the same: two of three attempts are lost, once.
func TestStrays_AListThatFailsForEverIsGivenUp(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	requests := placeUnseen(t, p, n, store, "a.example.test", "b.example.test")
	p.fail(reply(pathMyAccount, 500, "", ""))
	c := newClient(t, p, n, store)
	requests[0].Again = true
	for range maxDownLook - 1 {
		if _, err := c.Obtain(t.Context(), requests[0]); err == nil {
			t.Fatal("it did not fail")
		}
	}
	obtain(t, c, requests[0])
	requests[1].Again = true
	obtain(t, c, requests[1])
	if got := p.count("POST " + pathMyAccount); got != maxDownLook {
		t.Errorf("the account was read %d times", got)
	}
}

// What the CA says about later is heard at the list, too.
func TestStrays_ALimitOnTheListHoldsOrdersBack(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	r := placeUnseen(t, p, n, store, "a.example.test")[0]
	p.fail(reply(pathOrderList, 429, "", "", "Retry-After", "3600"))
	r.Again = true
	c := newClient(t, p, n, store)
	for range 3 {
		var prob *Problem
		if _, err := c.Obtain(t.Context(), r); !errors.As(err, &prob) || time.Until(prob.RetryAt()) < 50*time.Minute {
			t.Errorf("%v", err)
		}
	}
	if got := p.count("POST " + pathOrderList); got != 1 || p.count("POST "+pathOrder) != 1 {
		t.Errorf("the list was read %d times, %d orders", got, p.count("POST "+pathOrder))
	}
}

// A list that hangs costs a few seconds once, not for each name.
func TestStrays_AListThatHangsIsLeftAlone(t *testing.T) {
	_, p, n, store := setup(t, pebbleOptions{})
	requests := placeUnseen(t, p, n, store, "a.example.test", "b.example.test", "c.example.test")
	p.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, pathOrderList) {
			_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client has left
			<-r.Context().Done()
			return true
		}
		return false
	})
	c := newClient(t, p, n, store)
	for _, r := range requests {
		r.Again = true
		obtain(t, c, r)
	}
	if got := p.count("POST " + pathOrderList); got != 1 {
		t.Errorf("the list was read %d times", got)
	}
}

func TestStrays_WhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrays()
		raise := func(prefix string) {
			for i := range maxDoubts + 10 {
				s.raise(prefix+strconv.Itoa(i), doubt{began: time.Now()})
			}
		}
		raise("a")
		if len(s.doubts) != maxDoubts {
			t.Errorf("%d doubts", len(s.doubts))
		}
		time.Sleep(maxOrderAge)
		raise("b")
		if _, ok := s.doubtOf("b0"); !ok || len(s.doubts) > maxDoubts {
			t.Errorf("%d doubts, and a new one is among them: %v", len(s.doubts), ok)
		}
	})
}
