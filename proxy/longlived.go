package proxy

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"sync"
	"time"
)

// carrier is what brought a long exchange to where it goes: it goes on undisturbed as long as settings have it.
type carrier struct {
	site string
	to   any // an upstream's RoundTripper, or the address that a site passes through to
}

// in reports whether the settings still have the site, and it still goes there.
func (c carrier) in(st *state) bool {
	for i := range st.Sites {
		s := &st.Sites[i]
		if s.Name != c.site {
			continue
		}
		if s.Passthrough != nil {
			return c.to == s.Passthrough.To
		}
		if same(s.Upstream, c.to) {
			return true
		}
		for _, r := range s.Routes {
			if same(r.Upstream, c.to) {
				return true
			}
		}
	}
	return false
}

// same compares what may be of a type that cannot be compared, and then is not the same.
func same(a http.RoundTripper, b any) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && any(a) == b
}

// carrier is the exchange's. What goes to a customer's own upstream belongs to the site.
func (x *exchange) carrier() carrier {
	if x.way != nil && x.way.route.Upstream != nil {
		return carrier{x.site.Name, x.way.route.Upstream}
	}
	return carrier{x.site.Name, x.site.Upstream}
}

var errReplaced = errors.New("the configuration that it began under is gone for longer than Settings.LongLived")

// outlived reports whether the answer, which is still on its way, has gone on for longer than it may after a reload that changed where it comes from. It
// is asked for each piece.
//
// BUG: a stream in which nothing comes is not asked, and goes on until something does.
func (x *exchange) outlived() bool {
	now := x.srv.state.Load()
	if now == x.state || now.LongLived == 0 {
		return false
	}
	if x.judged != now {
		x.judged = now
		if !x.carrier().in(now) && x.expires.IsZero() {
			x.expires = time.Now().Add(now.LongLived)
		}
	}
	return !x.expires.IsZero() && time.Now().After(x.expires)
}

// goodbyeTime is what a WebSocket's client has for its own Close, and the upstream for its answer.
const goodbyeTime = 5 * time.Second

// tunnels are the upgraded connections: net/http forgets them when they are hijacked, so somebody else must be able to end them.
type tunnels struct {
	mu     sync.Mutex
	open   map[leaver]carrier
	ending map[leaver]*time.Timer // what is to end; the timer has no part in anything once its tunnel is gone
	closed bool
}

// leaver is a tunnel. Leave says goodbye where its protocol has a word for it; the other end may answer until it is closed.
type leaver interface {
	io.Closer
	leave()
}

// add enters t and reports whether it may go on; t must be closed if not.
func (ts *tunnels) add(t leaver, c carrier) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.open == nil {
		ts.open, ts.ending = map[leaver]carrier{}, map[leaver]*time.Timer{}
	}
	ts.open[t] = c
	return true
}

func (ts *tunnels) remove(t leaver) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.open, t)
	if timer := ts.ending[t]; timer != nil {
		timer.Stop()
		delete(ts.ending, t)
	}
}

// retire ends those that st no longer carries when after has passed.
func (ts *tunnels) retire(st *state, after time.Duration) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return
	}
	for t, c := range ts.open {
		if ts.ending[t] == nil && !c.in(st) {
			ts.ending[t] = time.AfterFunc(after, func() { ts.end(t) })
		}
	}
}

// end says goodbye and closes later.
func (ts *tunnels) end(t leaver) {
	ts.mu.Lock()
	if _, ok := ts.open[t]; ok && !ts.closed {
		ts.ending[t] = time.AfterFunc(goodbyeTime, func() { _ = t.Close() })
	}
	ts.mu.Unlock()
	t.leave()
}

// leave says goodbye to all.
func (ts *tunnels) leave() {
	ts.mu.Lock()
	all := make([]leaver, 0, len(ts.open))
	for t := range ts.open {
		all = append(all, t)
	}
	ts.mu.Unlock()
	for _, t := range all {
		t.leave()
	}
}

// close closes all, now and in future.
func (ts *tunnels) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for _, timer := range ts.ending {
		timer.Stop()
	}
	for t := range ts.open {
		_ = t.Close()
	}
}
