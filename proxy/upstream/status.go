package upstream

import "time"

// Status is what is known of one target, or of one address of it.
type Status struct {
	Target string // as in the log
	State  string // "up", "slow" (it came back and gets less than its share), "out" (its breaker is open), "trial" (it waits for a request to try), "down" (its probes fail)
	Weight int

	InFlight int    // requests that it has now
	Requests uint64 // that it got
	Failures uint64 // of them, those that failed by its fault

	LastError   string // empty if there was none
	LastErrorAt time.Time
	OutUntil    time.Time // of an open breaker
}

// Status tells of all targets, in the order of the configuration.
func (p *Pool) Status() []Status {
	var all []Status
	now := time.Now()
	for _, e := range *p.members.Load() {
		e.mu.Lock()
		s := Status{
			Target: e.label, State: "up", Weight: e.weight, InFlight: int(e.inflight.Load()), Requests: e.requests.Load(), Failures: e.faults.Load(),
			LastError: e.last.text, LastErrorAt: e.last.at,
		}
		e.mu.Unlock()
		out := e.out.Load()
		switch {
		case e.down.Load():
			s.State = "down"
		case out > now.UnixNano():
			s.State, s.OutUntil = "out", time.Unix(0, out)
		case out != 0:
			s.State = "trial"
		case e.share(now, p.cfg.SlowStart) < float64(e.weight):
			s.State = "slow"
		}
		all = append(all, s)
	}
	return all
}

// Retried returns how many requests went to another target after one had failed.
func (p *Pool) Retried() uint64 { return p.retried.Load() }

// Waiting returns how many requests are in the queue.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len()
}
