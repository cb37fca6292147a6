package proxy

import "context"

// Leave is for a process whose sockets another one serves from now on. It closes ours, goes on with the connections that there are, as after Retire, and ends those
// of HTTP/3, whose socket two processes cannot read: each when its requests are done, all when ctx ends. It returns when the UDP sockets are closed. Shutdown comes
// afterwards.
func (s *Server) Leave(ctx context.Context) {
	s.Retire()
	s.leaveOnce.Do(func() { close(s.left) })
	s.closeListeners()
	s.h3.shutdown(ctx.Done())
	s.h3.stop(true)
	s.h3.awaitClosed()
}
