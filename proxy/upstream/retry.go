package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
)

// Retries says when a request that failed at one target goes to another. It needs one that has not had it: a pool with a single target never repeats.
// After a failure to connect nothing was sent, so any method will do, with its body. All else is repeated only for Methods, which must be idempotent
// (RFC 9110 §9.2.2), and without a body: who would say how much of it is on its way?
type Retries struct {
	// Max bounds the retries of one request. Zero turns them off.
	Max int

	// On: "connect" (no connection), "502" (that status, or no proper answer), "503" (that status), "504" (that status, or no answer in time).
	On []string

	// Methods for which a request that was sent may be sent again.
	Methods []string

	// Budget is the part of the requests that may be retried, in hundredths, beside a reserve of ten retries: where everything fails, retries must not
	// multiply the load.
	Budget int
}

// Idempotent reports whether sending a request of the method twice has the effect of sending it once (RFC 9110 §9.2.2).
func Idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

func (c Retries) check() error {
	for _, on := range c.On {
		if !slices.Contains([]string{"connect", "502", "503", "504"}, on) {
			return fmt.Errorf("upstream: retries on %q: write connect, 502, 503 or 504", on)
		}
	}
	for _, m := range c.Methods {
		if !Idempotent(m) {
			return fmt.Errorf("upstream: %s is not idempotent: it is retried only if nothing was sent, whatever the methods are", m)
		}
	}
	if c.Max < 0 || c.Budget < 0 || c.Budget > 100 {
		return errors.New("upstream: retries need a maximum of 0 or more and a budget of 0 to 100 percent")
	}
	return nil
}

// next returns the endpoint that gets the request after this outcome, with a place at it; nil if the outcome stands.
func (p *Pool) next(j *journey, e *endpoint, res *http.Response, err *Error) *endpoint {
	if len(j.had) >= p.cfg.Retries.Max || !p.repeats(j.r, res, err) {
		return nil
	}
	if !j.rewind(err) {
		return nil
	}
	j.had = append(j.had, e)
	if p.cfg.MaxConns > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	other, none := p.pick(j)
	if none != nil {
		return nil
	}
	if !p.budget.withdraw() {
		j.endTrial(other)
		return nil
	}
	other.inflight.Add(1)
	p.retried.Add(1)
	return other
}

// rewind reports whether the body, if there is one, can be sent after this outcome.
func (j *journey) rewind(err *Error) bool {
	if j.r.Body == nil || j.r.Body == http.NoBody {
		return true
	}
	if err == nil || !err.unsent || j.r.GetBody == nil {
		return false
	}
	var none error
	j.body, none = j.r.GetBody()
	return none == nil
}

// repeats reports whether the rules allow to send the request again after this outcome.
func (p *Pool) repeats(r *http.Request, res *http.Response, err *Error) bool {
	on := ""
	switch {
	case err == nil && (res.StatusCode < 502 || res.StatusCode > 504): // almost always
		return false
	case err == nil:
		on = strconv.Itoa(res.StatusCode)
	case err.clients || err.Class == ErrCanceled:
		return false
	case err.unsent:
		return slices.Contains(p.cfg.Retries.On, "connect")
	case err.Class == ErrTimeout:
		on = "504"
	default:
		on = "502"
	}
	return slices.Contains(p.cfg.Retries.On, on) && slices.Contains(p.cfg.Retries.Methods, r.Method)
}

// budget bounds the retries to a part of the requests. It counts in hundredths of a retry.
type budget struct {
	saved atomic.Int64
}

// reserve is what a budget can save: it lets retries happen where requests are rare.
const reserve = 10 * 100

// deposit is made for every request.
func (b *budget) deposit(percent int) {
	if saved := b.saved.Load(); saved < reserve {
		b.saved.CompareAndSwap(saved, min(reserve, saved+int64(percent))) // a deposit that is lost to another is no loss
	}
}

// withdraw pays for a retry; it reports false if there is not enough.
func (b *budget) withdraw() bool {
	for {
		saved := b.saved.Load()
		if saved < 100 {
			return false
		}
		if b.saved.CompareAndSwap(saved, saved-100) {
			return true
		}
	}
}
