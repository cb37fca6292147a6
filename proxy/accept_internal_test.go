package proxy

import (
	"net"
	"testing"
	"time"

	"go.uber.org/zap"
)

// Who has left its listener has nothing to wait for, though there are as many connections as there may be.
func TestAccept_EndsWhenAFullServerLeaves(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := &Server{log: zap.NewNop(), left: make(chan struct{}), draining: make(chan struct{})}
	s.cfg.Limits.Connections = 1
	s.open.Store(1)
	close(s.left)
	ended := make(chan struct{})
	go func() { s.accept(t.Context(), l, nil, nil); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}
