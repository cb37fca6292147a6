package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// ErrNoRenewalInfo is wrapped by the error of RenewalInfo where the CA has none to give: its directory lacks it, or the certificate has no id
// (RFC 9773 §4.1). The caller decides by its own rules when to renew, and may ask again at NextCheck: the CA may have learnt it by then.
var ErrNoRenewalInfo = errors.New("no renewal information")

// RenewalInfo is a CA's advice when to renew a certificate (RFC 9773 §4.2).
type RenewalInfo struct {
	// Start and End are the window in which the CA wants the order for the renewal, End excluded. A window in the past means at once: the certificate was
	// revoked, or will be. Let's Encrypt exempts orders within the window from its rate limits, so nobody should order before Start.
	Start, End time.Time

	// Explanation is the URL of a page that says why the window is as it is; empty without one. It is for a person.
	Explanation string

	// NextCheck is when to ask again. It is set beside an error, too.
	NextCheck time.Time
}

// Bounds of when to ask again (RFC 9773 §4.3.2 and §4.3.3).
const (
	minRenewalCheck = time.Minute
	maxRenewalCheck = 24 * time.Hour
	renewalCheck    = 6 * time.Hour // of a CA that does not say, and after an answer that makes no sense
	renewalRetry    = time.Hour     // after no answer
)

// RenewalInfo asks the CA when the certificate at the head of the chain should be renewed (RFC 9773). No account is needed. An error means that the caller's own
// rules hold on, and the last window that the CA gave.
func (c *Client) RenewalInfo(ctx context.Context, chain [][]byte) (RenewalInfo, error) {
	return c.RenewalInfoOf(ctx, certificateID(chain))
}

// RenewalInfoOf is RenewalInfo for who has not the certificate at hand, but its id (RFC 9773 §4.1). The empty id is that of a certificate that has none.
func (c *Client) RenewalInfoOf(ctx context.Context, id string) (RenewalInfo, error) {
	later := RenewalInfo{NextCheck: time.Now().Add(renewalCheck)}
	if err := c.open(); err != nil {
		return later, err
	}
	if id == "" {
		return later, fmt.Errorf("%w: the certificate has no authority key identifier or no serial number", ErrNoRenewalInfo)
	}
	d, err := c.speaker(ctx)
	if err != nil {
		return RenewalInfo{NextCheck: time.Now().Add(renewalRetry)}, err
	}
	v, ok := d.(*v2) // v1 has nothing of the kind
	if !ok || v.dir.endpoints["renewalInfo"] == "" {
		return later, fmt.Errorf("%w at %s", ErrNoRenewalInfo, c.cfg.Name)
	}
	target, err := url.JoinPath(v.dir.endpoints["renewalInfo"], id)
	if err != nil {
		return later, fmt.Errorf("make the address of the renewal information: %w", err)
	}
	return c.wire.renewalInfo(ctx, target)
}

// renewalInfo gets and reads the answer.
func (w *wire) renewalInfo(ctx context.Context, target string) (info RenewalInfo, err error) {
	const op = "get the renewal information"
	ex := &exchange{endpoint: endpointRenewalInfo, direct: true}
	var body []byte
	err = w.retryQuickly(ctx, func() error {
		body = nil
		err := w.do(ctx, ex, http.MethodGet, target, nil, &body)
		if err == nil && ex.status != http.StatusOK {
			err = fmt.Errorf("status %d", ex.status)
		}
		if err != nil {
			return requestProblem(w.ca, op, ex, err, time.Now())
		}
		return nil
	})
	now := time.Now()
	if err == nil {
		if info, err = parseRenewalInfo(body); err != nil {
			err = requestProblem(w.ca, op, ex, &answerError{err}, now)
		}
	}
	info.NextCheck = nextRenewalCheck(ex, now)
	return info, err
}

// nextRenewalCheck returns when to ask again: when the CA said, within bounds.
func nextRenewalCheck(ex *exchange, now time.Time) time.Time {
	wait, said := retryAfter(ex.header, now)
	switch {
	case said:
		return now.Add(min(max(wait, minRenewalCheck), maxRenewalCheck))
	case ex.status == 0 || ex.status >= 500:
		return now.Add(renewalRetry)
	}
	return now.Add(renewalCheck)
}

// parseRenewalInfo reads an answer. RFC 9773 §4.2: "A RenewalInfo object in which the end timestamp equals or precedes the start timestamp is invalid.
// Servers MUST NOT serve such a response, and clients MUST treat one as though they failed to receive any response".
func parseRenewalInfo(body []byte) (RenewalInfo, error) {
	var raw struct {
		Window *struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		Explanation json.RawMessage `json:"explanationURL"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return RenewalInfo{}, errors.New("it is not the JSON that RFC 9773 asks for")
	}
	if raw.Window == nil || raw.Window.Start.IsZero() || raw.Window.End.IsZero() {
		return RenewalInfo{}, errors.New("it has no suggestedWindow with start and end")
	}
	if !raw.Window.End.After(raw.Window.Start) {
		return RenewalInfo{}, fmt.Errorf("its window ends at %s, not after its start", raw.Window.End.UTC().Format(time.RFC3339))
	}
	info := RenewalInfo{Start: raw.Window.Start, End: raw.Window.End}
	if page := text(raw.Explanation); page != "" {
		if u, err := url.Parse(page); err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http") {
			info.Explanation = u.String()
		}
	}
	return info, nil
}
