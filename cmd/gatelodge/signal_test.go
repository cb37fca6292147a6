package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
	"gatelodge/cmd/internal/config"
)

func TestProgram_DoesNotWaitForItsBucketWhenAskedToEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	bucket := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stop()
		<-r.Context().Done()
	}))
	defer bucket.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	l := newBareLodge(t)
	l.write("bucket.toml", fmt.Sprintf("listen.https = [%q]\nlisten.http = [%q]\nadmin.listen = %q\nadmin.metrics = \"\"\n"+
		"storage.kind = \"s3\"\nstorage.path = %q\nstorage.s3 = { endpoint = %q, bucket = \"certs\" }\nstorage.encryption = { require = false }\nca = [{ name = \"test\", directory = \"https://127.0.0.1:1/\" }]\n"+
		"site = [{ hosts = [\"a.test\"], to = %q }]\n",
		l.https, l.http, "unix://"+l.path("admin.sock"), l.path("storage"), bucket.URL, l.upstream.URL))
	cfg, err := config.Load(l.path("bucket.toml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProgram(ctx, cfg, nil, nil)
	if err == nil {
		p.close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it gave up for another reason: %v", err)
	}
}

func TestProgram_TakesTwoSignalsBeforeItServes(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	cfg, err := config.Load(l.path("gatelodge.toml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProgram(t.Context(), cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	for range 2 {
		p.onSignal(syscall.SIGTERM, stop)
	}
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ended with: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}
