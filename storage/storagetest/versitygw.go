package storagetest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gatelodge/storage"
)

// A Versitygw is an object store in a process of its own, on a port of the loopback. It can be stopped and started again.
type Versitygw struct {
	Endpoint string
	Bucket   string // exists, empty

	t       testing.TB
	address string
	dir     string
	cmd     *exec.Cmd
	out     bytes.Buffer // of the present process
}

// StartVersitygw starts the versitygw of the PATH, and makes the environment that of a client with credentials for it.
func StartVersitygw(t testing.TB) *Versitygw {
	t.Helper()
	SetS3Env(t, "testkey", "testsecret")
	v := &Versitygw{Bucket: "test", t: t, address: freeAddress(t), dir: t.TempDir()}
	v.Endpoint = "http://" + v.address
	if err := os.Mkdir(filepath.Join(v.dir, v.Bucket), 0o700); err != nil { // a folder is a bucket
		t.Fatal(err)
	}
	t.Cleanup(v.Stop)
	v.Start()
	return v
}

// Config is for OpenS3. Its leases are quick.
func (v *Versitygw) Config() storage.S3Config {
	return storage.S3Config{Endpoint: v.Endpoint, Bucket: v.Bucket, Lease: QuickLeases()}
}

// Start starts it again after Stop, with all that it had.
func (v *Versitygw) Start() {
	v.t.Helper()
	// Without --keep-alive every request is a connection; without an address it listens on all.
	v.cmd = exec.Command("versitygw", "--port", v.address, "--region", "us-east-1", "--keep-alive", "--quiet", "posix", v.dir)
	v.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=testkey", "ROOT_SECRET_KEY=testsecret")
	v.out.Reset()
	v.cmd.Stdout, v.cmd.Stderr = &v.out, &v.out
	if err := v.cmd.Start(); err != nil {
		v.t.Fatalf("start versitygw (.ci/peers.sh installs it): %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !v.answers(ctx) {
		select {
		case <-ctx.Done():
			v.Stop()
			v.t.Fatalf("versitygw does not answer: %s", v.out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (v *Versitygw) answers(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.Endpoint, nil)
	if err != nil {
		return false
	}
	r.Close = true
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusForbidden // it is up, and we have no signature
}

// Stop ends the process and keeps what it stored. Stopping twice is harmless.
func (v *Versitygw) Stop() {
	if v.cmd == nil {
		return
	}
	v.cmd.Process.Signal(syscall.SIGKILL)
	v.cmd.Wait()
	v.cmd = nil
}

// freeAddress is one that was free a moment ago.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
