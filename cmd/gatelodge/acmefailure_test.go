package main

import (
	"errors"
	"fmt"
	"net/http"
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

func TestExplained_LeavesOtherErrorsAlone(t *testing.T) {
	if err := errors.New("disk full"); explained(err) != err {
		t.Error("not the same")
	}
}
