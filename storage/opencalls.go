package storage

import (
	"context"
	"sync"
)

// openCalls counts the calls in progress of something that can be closed: closing ends those that wait, and waits for all.
type openCalls struct {
	life context.Context // ends when close begins
	end  context.CancelCauseFunc

	mu     sync.Mutex // guards closed, and that no call begins after it is set; never held while waiting
	closed bool
	wg     sync.WaitGroup
}

func newOpenCalls() *openCalls {
	c := new(openCalls)
	c.life, c.end = context.WithCancelCause(context.Background())
	return c
}

// begin is the first thing of a call, end the last. The context ends with close too.
func (c *openCalls) begin(ctx context.Context) (_ context.Context, end func(), _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, context.Cause(c.life)
	}
	c.wg.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	return ctx, func() {
		unhook()
		cancel(nil)
		c.wg.Done()
	}, nil
}

// close refuses later calls with the cause and ends the present ones with it.
func (c *openCalls) close(cause error) {
	c.mu.Lock()
	c.closed = true
	c.end(cause)
	c.mu.Unlock()
	c.wg.Wait()
}
