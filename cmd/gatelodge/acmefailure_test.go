package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"gatelodge/acmeclient/devca"
)

// TestProgram_SaysWhatTheCASaidAndWhatToDo: the advice for a refusal comes from who knows the CA's words, and ends where the operator looks.
func TestProgram_SaysWhatTheCASaidAndWhatToDo(t *testing.T) {
	l := newLodge(t, devca.Config{Fault: func(w http.ResponseWriter, _ *http.Request, endpoint string) bool {
		if endpoint != "newOrder" {
			return false
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"forbidden by policy"}`)
		return true
	}})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("forbidden.test"); err == nil {
		t.Fatal("a certificate")
	}
	s, err := l.program.certs.Status(t.Context(), "forbidden.test")
	if err != nil || s.LastFailure == nil || s.LastFailure.Detail != "forbidden by policy" || !strings.Contains(s.LastFailure.Advice, "use another CA for it") {
		t.Errorf("status is %+v, failure %+v, %v", s, s.LastFailure, err)
	}
}

// TestProgram_AsksTheNextCAForWhatV1Lacks: profiles, here. Nothing is sent to the first for it, and nothing is held against the name.
func TestProgram_AsksTheNextCAForWhatV1Lacks(t *testing.T) {
	l := newLodge(t, devca.Config{Protocols: devca.ProtocolsV1})
	next, err := devca.New(devca.Config{HTTPAddr: l.http, TLSAddr: l.https})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	l.write("next.pem", string(next.RootPEM()))
	l.roots.AppendCertsFromPEM(next.RootPEM())
	l.configure(l.ca.DirectoryURL(), fmt.Sprintf("\n[[ca]]\nname = \"next\"\ndirectory = %q\nroots = [%q]\n", next.DirectoryURL(), l.path("next.pem")))
	cfg, err := os.ReadFile(l.path("gatelodge.toml"))
	if err != nil {
		t.Fatal(err)
	}
	l.write("gatelodge.toml", strings.Replace(string(cfg), "[[ca]]\n", "[[ca]]\nprofile = \"short\"\nprofile_required = true\n", 1))
	l.start()
	if _, err := l.handshake("picky.test"); err != nil {
		t.Fatal(err)
	}
	s, err := l.program.certs.Status(t.Context(), "picky.test")
	if err != nil || s.CA != "next" || s.LastFailure != nil || l.orders("picky.test") != 0 || next.Stats().Orders["picky.test"] != 1 {
		t.Errorf("%+v, %v, orders %v and %v", s, err, l.ca.Stats().Orders, next.Stats().Orders)
	}
}

func TestExplained_LeavesOtherErrorsAlone(t *testing.T) {
	if err := errors.New("disk full"); explained(err) != err {
		t.Error("not the same")
	}
}
