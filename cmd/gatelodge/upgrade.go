package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"gatelodge/cmd/internal/handover"
	"gatelodge/proxy"
)

const (
	successorTime = time.Minute      // for a new process to serve
	adminTime     = 10 * time.Second // for the process before to give the admin socket up
)

// command is how this process was started: what is at its path now, maybe by a symbolic link, is what an upgrade starts.
type command struct {
	path string
	args []string
}

func ownCommand() (*command, error) {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("find our own binary: %w", err)
	}
	return &command{path, os.Args[1:]}, nil
}

// upgrade starts the binary anew, in a process that takes our sockets, and returns its id when it serves; then this one leaves. On error all is as it was.
func (p *program) upgrade(ctx context.Context) (pid int, err error) {
	p.reloading.Lock() // a reload would change what is handed over
	defer p.reloading.Unlock()
	switch {
	case p.closed || p.left || p.ending.Load():
		return 0, errEnding
	case p.cfg.Load().Process.Upgrade == "off":
		return 0, errors.New(`process.upgrade is "off"`)
	case p.command == nil:
		return 0, errors.New("only what `gatelodge run` started can be upgraded")
	case os.Getpid() == 1:
		return 0, errors.New("a container ends with its first process, which therefore cannot hand over: start another container instead")
	}
	sockets, err := p.sockets()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, successorTime, fmt.Errorf("it had %s", successorTime))
	defer cancel()
	next, err := handover.Start(ctx, p.command.path, p.command.args, sockets)
	if err != nil {
		return 0, fmt.Errorf("upgrade to %s: %w", p.command.path, err)
	}
	p.left = true
	p.successor <- next
	return next.Pid, nil
}

// upgradeOrSay upgrades, and logs why not.
func (p *program) upgradeOrSay(ctx context.Context) (int, error) {
	pid, err := p.upgrade(ctx)
	if err != nil {
		p.log.Error("not upgraded, this process goes on", zap.Error(err))
	}
	return pid, err
}

// sockets are duplicates of all that a successor takes over.
func (p *program) sockets() (all []handover.Socket, err error) {
	for _, from := range []*proxy.Sockets{p.https, p.http, p.side} {
		passed, err := from.Pass()
		if err != nil {
			for _, s := range all {
				_ = s.File.Close()
			}
			return nil, err
		}
		for _, s := range passed {
			all = append(all, handover.Socket{Name: s.Address, File: s.File})
		}
	}
	return all, nil
}

// leave lets another process serve: it ends orders and the requests of HTTP/3, within process.drain or until ctx ends.
func (p *program) leave(ctx context.Context, next *handover.Successor, side *side) {
	cfg := p.cfg.Load().Process
	p.log.Info("another process serves now, this one finishes what is under way", zap.Int("pid", next.Pid), zap.Duration("orders_for_at_most", cfg.Drain), zap.Duration("connections_for_at_most", cfg.LongLived))
	_, _ = daemon.SdNotify(false, "MAINPID="+strconv.Itoa(next.Pid)) // without it systemd would take our end for the service's
	for _, s := range []*proxy.Sockets{p.https, p.http} {
		s.Leave()
	}
	side.close()
	drain, cancel := context.WithTimeout(ctx, cfg.Drain)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() {
		p.proxy.Leave(drain)
		next.Release()
	})
	both.Go(func() { p.certs.Retire(drain) })
	both.Wait()
	p.certs.Close()
	<-drain.Done() // connections without a request end by themselves, or take one that tells them to go
}

// finish goes on with the other connections for process.long_lived, or, once ctx has ended, for process.drain.
func (p *program) finish(ctx, work context.Context) {
	cfg := p.cfg.Load().Process
	all, cancel := context.WithCancel(work)
	if cfg.LongLived > 0 {
		all, cancel = context.WithTimeout(work, cfg.LongLived)
	}
	var hurrying sync.WaitGroup
	defer hurrying.Wait()
	defer cancel()
	hurrying.Go(func() {
		select {
		case <-ctx.Done():
		case <-all.Done():
			return
		}
		drain, done := context.WithTimeout(all, cfg.Drain)
		defer done()
		p.shutdown(drain) // the other call returns when this one has closed everything
	})
	p.shutdown(all)
}

// awaitQUIC is for proxy.Config.
func (p *program) awaitQUIC() func(context.Context) {
	if p.inherited == nil {
		return nil
	}
	return p.inherited.Released
}

// inherit tells the process before that we serve, and takes the admin socket, which it gives up then.
func (p *program) inherit(ctx context.Context, s *side) error {
	if p.inherited == nil {
		return nil
	}
	if err := p.inherited.Serving(); err != nil {
		return err
	}
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(adminTime); ; {
		err := p.startAdmin(s)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			p.log.Error("the process before does not give the admin socket up, we go on without", zap.Error(err))
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}
