package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is the successor too, if somebody hands over to it: it answers one connection with what it is told, then ends.
func TestMain(m *testing.M) {
	next, err := Inherit()
	if err != nil {
		panic(err)
	}
	if next == nil {
		goleak.VerifyTestMain(m)
		return
	}
	switch os.Args[1] {
	case "fail":
		os.Exit(3)
	case "hang":
		select {}
	}
	f := next.Files()[0]
	l, err := net.FileListener(f)
	if err == nil {
		err = next.Serving()
	}
	if err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(c, f.Name()+" "+os.Getenv(variable)+os.Args[1])
	next.Released(context.Background())
	_, _ = io.WriteString(c, " released")
	_ = c.Close()
}

func listener(t *testing.T) (*net.TCPListener, []Socket) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener), []Socket{{"web", f}}
}

func TestStart_HandsSocketsOver(t *testing.T) {
	l, sockets := listener(t)
	next, err := Start(t.Context(), os.Args[0], []string{"hello"}, sockets)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // the other process still listens
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first := make([]byte, len("web hello"))
	if _, err := io.ReadFull(c, first); err != nil || string(first) != "web hello" {
		t.Errorf("the other process said %q, %v", first, err)
	}
	next.Release()
	if rest, err := io.ReadAll(c); err != nil || string(rest) != " released" {
		t.Errorf("after the release it said %q, %v", rest, err)
	}
}

func TestStart_EndsWhatDoesNotServe(t *testing.T) {
	_, sockets := listener(t)
	if _, err := Start(t.Context(), os.Args[0], []string{"fail"}, sockets); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a process that fails: %v", err)
	}
	_, sockets = listener(t)
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, late)
	defer cancel()
	if _, err := Start(ctx, os.Args[0], []string{"hang"}, sockets); !errors.Is(err, late) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process that hangs: %v", err)
	}
	_, sockets = listener(t)
	if _, err := Start(t.Context(), "/no/such/binary", nil, sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
