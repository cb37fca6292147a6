package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
	"gatelodge/cmd/internal/admin"
)

func TestProgram_TellsTheWebhookOfABudgetThatIsUsedUp(t *testing.T) {
	type post struct {
		Program string
		Event   struct{ Kind, Subject, Advice string }
	}
	posts := make(chan post, 16)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var p post
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Errorf("posted: %v", err)
		}
		posts <- p
	}))
	t.Cleanup(hook.Close)
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), `
[issue.budget]
new_orders = "1/1h"

[alert]
webhook = "`+hook.URL+`/token"
`)
	l.start()
	if _, err := l.handshake("first.test"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.handshake("second.test"); err == nil {
		t.Fatal("the budget of one order was enough for two")
	}
	if n := l.orders("second.test"); n != 0 {
		t.Errorf("%d orders beyond the budget", n)
	}
	select {
	case p := <-posts:
		if p.Program != "gatelodge" || p.Event.Kind != "budget_used_up" || p.Event.Subject != "new_orders of CA test" || p.Event.Advice == "" {
			t.Errorf("posted %+v", p)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing was posted")
	}
	client, err := admin.NewClient("unix://" + l.path("admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Cert(t.Context(), "second.test")
	if err != nil || st.State != "waiting for a budget" || st.Budget != "new_orders" || st.Position != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
	var told strings.Builder
	if err := admin.WriteExplanation(&told, st, time.Now()); err != nil || !strings.Contains(told.String(), "issue.budget.new_orders is used up") {
		t.Errorf("%s, %v", told.String(), err)
	}
	failing := 0
	for c, err := range client.Certs(t.Context(), true) {
		if err != nil || c.Name != "second.test" {
			t.Errorf("%+v, %v", c, err)
		}
		failing++
	}
	if failing != 1 {
		t.Errorf("%d names want attention", failing)
	}
	if shown, err := client.Config(t.Context()); err != nil || strings.Contains(string(shown), "token") {
		t.Errorf("the configuration shows the webhook's token: %s, %v", shown, err)
	}
}
