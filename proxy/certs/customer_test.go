package certs

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

func TestList_AsksNobodyWhoseNamesAre(t *testing.T) {
	var asked atomic.Int64
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=0")
		fmt.Fprint(w, `{"tenant":"acme"}`)
	}))
	defer endpoint.Close()
	ask, err := permission.NewAsk(permission.AskConfig{URL: endpoint.URL})
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	h.set.Permission = ask
	h.open()
	if err := ask.Allow(t.Context(), "a.example.com", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if s := h.m.remembered("a.example.com"); s.Tenant != "acme" {
			t.Errorf("%+v", s)
		}
	}
	ask.Close() // waits for what is under way
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, once for the permission", n)
	}
}

func TestCustomer_LiesBesideTheCertificate(t *testing.T) {
	asked := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	b := &storage.Bundle{}
	if got := customerOf(b); got.Allowed {
		t.Errorf("a bundle that says nothing: %+v", got)
	}
	b.Extra = withExtra(b.Extra, extraEarly, []byte("true"))
	b.Extra = withExtra(b.Extra, extraCustomer, customerField(permission.Answer{Allowed: true, Tenant: "acme", To: "http://127.0.0.1:1", Asked: asked}))
	if got := customerOf(b); got.Tenant != "acme" || got.To != "http://127.0.0.1:1" || !got.Asked.Equal(asked) || string(b.Extra[extraEarly]) != "true" {
		t.Errorf("%+v of %s", got, b.Extra)
	}
	b.Extra[extraCustomer] = []byte(`{"tenant":5}`)
	if got := customerOf(b); got.Allowed {
		t.Errorf("what cannot be read: %+v", got)
	}
}
