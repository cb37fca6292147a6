// Package alert posts events to a webhook, so that a person hears of them. Nobody waits for it: what has no place in its queue is left out and counted.
package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Bounds of what goes out.
const (
	queueSize   = 256
	postTime    = 10 * time.Second // one request
	retryFirst  = 2 * time.Second  // doubled each time
	retryLast   = 5 * time.Minute
	giveUpAfter = time.Hour // since the first try
	tellAgain   = 6 * time.Hour
	toldMost    = 4096 // keys that are remembered
	closeTime   = 5 * time.Second
	answerBytes = 4 << 10 // read of an answer, so that the connection can be used again
)

// Config is what a Sender is built with.
type Config struct {
	// URL returns where events go now, empty for nowhere. It may hold a secret: it is shown nowhere. Required.
	URL func() (string, error)

	// Node names this process in what is posted.
	Node string

	// Logger is required.
	Logger *zap.Logger
}

// Sender has a queue and a goroutine that empties it. Its life is New, Start, Close.
type Sender struct {
	cfg    Config
	client *http.Client
	queue  chan message
	cut    *message // whose delivery Close ended
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex // guards what follows
	told map[string]time.Time
	lost int // events without a place in the queue
}

// message is an event on its way.
type message struct {
	key  string
	body any
}

// New opens nothing. Redirects are not followed: they could lead anywhere.
func New(cfg Config) (*Sender, error) {
	if cfg.URL == nil || cfg.Logger == nil {
		return nil, errors.New("alert: URL and Logger are required")
	}
	return &Sender{
		cfg: cfg, queue: make(chan message, queueSize), told: map[string]time.Time{}, cancel: func() {},
		client: &http.Client{Timeout: postTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Start posts what is sent until Close. It is called once at most.
func (s *Sender) Start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-s.queue:
				s.deliver(ctx, m)
				s.sayLost()
			}
		}
	})
}

// Close ends the deliveries; what is still undelivered gets one try each, all together for a few seconds.
func (s *Sender) Close() {
	s.cancel()
	s.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if s.cut != nil {
		s.deliverLast(ctx, *s.cut)
	}
	for {
		select {
		case m := <-s.queue:
			s.deliverLast(ctx, m)
		default:
			s.client.CloseIdleConnections()
			return
		}
	}
}

func (s *Sender) deliverLast(ctx context.Context, m message) {
	if err := s.post(ctx, m); err != nil {
		s.cfg.Logger.Warn("alert not delivered before the end", zap.String("event", m.key), zap.Error(err))
	}
}

// Send puts the event into the queue, unless one with the same key was sent in the last hours. It never waits.
func (s *Sender) Send(key string, event any) {
	if url, err := s.cfg.URL(); url == "" && err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at, told := s.told[key]; told && now.Sub(at) < tellAgain {
		return
	}
	select {
	case s.queue <- message{key, event}:
		s.rememberLocked(key, now)
	default:
		if s.lost++; s.lost == 1 {
			s.cfg.Logger.Warn("alerts come faster than the webhook takes them, some are left out")
		}
	}
}

// sayLost says how many events had no place, once there is room again.
func (s *Sender) sayLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 && len(s.queue) < queueSize/2 {
		s.cfg.Logger.Warn("alerts that came too fast were left out", zap.Int("alerts", s.lost))
		s.lost = 0
	}
}

// rememberLocked keeps the memory of what was told within its bound.
func (s *Sender) rememberLocked(key string, now time.Time) {
	if len(s.told) >= toldMost {
		for k, at := range s.told {
			if now.Sub(at) >= tellAgain {
				delete(s.told, k)
			}
		}
	}
	for k := range s.told {
		if len(s.told) < toldMost {
			break
		}
		delete(s.told, k)
	}
	s.told[key] = now
}

// deliver tries until the webhook takes the event, refuses it for good, or too much time has passed.
func (s *Sender) deliver(ctx context.Context, m message) {
	began := time.Now()
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		err := s.post(ctx, m)
		refused := new(refusal)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			s.cut = &m
			return
		case errors.As(err, &refused) && refused.final(), time.Since(began) > giveUpAfter:
			s.cfg.Logger.Error("alert not delivered", zap.String("event", m.key), zap.Error(err))
			return
		}
		s.cfg.Logger.Warn("alert not delivered yet, trying again", zap.String("event", m.key), zap.Duration("in", pause), zap.Error(err))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			s.cut = &m
			return
		case <-timer.C:
		}
	}
}

// envelope is what is posted.
type envelope struct {
	Program string `json:"program"`
	Node    string `json:"node,omitempty"`
	Event   any    `json:"event"`
}

func (s *Sender) post(ctx context.Context, m message) error {
	to, err := s.cfg.URL()
	if err != nil {
		return fmt.Errorf("read alert.webhook: %w", err)
	}
	body, err := json.Marshal(envelope{"gatelodge", s.cfg.Node, m.body})
	if err != nil {
		return fmt.Errorf("encode the event: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return errors.New("alert.webhook is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "gatelodge")
	res, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("post to alert.webhook: %w", bare(err))
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, answerBytes)); err != nil {
		return fmt.Errorf("read the answer of alert.webhook: %w", bare(err))
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return &refusal{res.StatusCode}
	}
	return nil
}

// bare takes the URL out of an error: it may hold a secret.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal is an answer that is no success.
type refusal struct{ status int }

func (r *refusal) Error() string {
	return fmt.Sprintf("alert.webhook answers with status %d", r.status)
}

// final reports whether trying again is of no use: the receiver does not like what it got.
func (r *refusal) final() bool {
	return r.status >= 300 && r.status < 500 && r.status != http.StatusTooManyRequests && r.status != http.StatusRequestTimeout
}
