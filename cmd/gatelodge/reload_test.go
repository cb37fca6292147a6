package main

import (
	"strings"
	"testing"

	"gatelodge/acmeclient/devca"
)

func TestProgram_GoesOnOrderingAfterAReloadThatFailed(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("before.test"); err != nil {
		t.Fatal(err)
	}
	// The CA is described anew, and something else of the same file cannot be loaded.
	l.configure(l.ca.DirectoryURL(), "[issue]\nchallenges = [\"http-01\"]\n[[site]]\nhosts = [\"own.test\"]\nto = \""+l.upstream.URL+"\"\ncertificate = \"names\"\nkey = \"names\"\n")
	if err := l.program.reload(); err == nil {
		t.Fatal("the reload succeeded")
	}
	if _, err := l.handshake("after.test"); err != nil {
		t.Errorf("a new name after a failed reload: %v", err)
	}
	l.configure(l.ca.DirectoryURL(), "[issue]\nchallenges = [\"http-01\"]\n")
	if err := l.program.reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.handshake("later.test"); err != nil {
		t.Errorf("a new name after a good reload: %v", err)
	}
}

func TestProgram_SaysWhichKeysOnlyARestartApplies(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	l.write("kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
	for key, more := range map[string]string{
		"storage.encryption": "[storage.encryption]\nkeys = [\"1=file:" + l.path("kek") + "\"]\n",
		"tls.groups":         "[tls]\ngroups = [\"X25519\"]\n",
	} {
		l.configure(l.ca.DirectoryURL(), more)
		if err := l.program.reload(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("reload with another %s: %v", key, err)
		}
	}
}

func TestProgram_RefusesAReloadWhoseAlertsWouldGoNowhere(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	l.configure(l.ca.DirectoryURL(), "[alert]\nwebhook = \"file:"+l.path("hook")+"\"\n")
	if err := l.program.reload(); err == nil || !strings.Contains(err.Error(), "alert.webhook") {
		t.Errorf("a webhook whose file is missing: %v", err)
	}
	l.write("hook", "https://hooks.example/T0\n")
	if err := l.program.reload(); err != nil {
		t.Error(err)
	}
}
