package acmeclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"gatelodge/storage"
)

// Bounds of challenges and of what strangers can cost us by asking for them.
const (
	challengeTTL    = time.Hour
	positiveTTL     = 10 * time.Second // of an http-01 answer read from the store; several vantage points ask for the same one
	negativeTTL     = 2 * time.Second
	tlsTTL          = time.Second // of a tls-alpn-01 answer: another order for the name may follow at once
	maxLookups      = 4096        // remembered at a time
	lookupRate      = 25          // store reads that find nothing, per second and challenge type
	lookupBurst     = 4 * lookupRate
	lookupWait      = time.Second     // for one of them, when many come at once
	lookupTry       = 2 * time.Second // for one read; where the store does not answer it, another may go through
	lookupTimeout   = 8 * time.Second // CAs wait for some ten
	challengePrefix = "acme/challenges/"
	httpPrefix      = "/.well-known/acme-challenge/" // RFC 8555 §8.3
)

// Responder answers the CA's challenges (http-01, tls-alpn-01) for all Clients of a process, and for those of other nodes on the same store: an answer
// is in memory and in the store before the CA is told.
//
// Strangers can ask for challenges, too. What is not pending goes the way that it would go without the Responder, and costs at most
// 50 reads of the store per second, whatever they ask. What a CA asks for is found, and costs nothing of that: a fleet that has many orders at a time is asked
// for several answers of each, mostly at nodes that did not publish them.
type Responder struct {
	store                   storage.Store
	log                     *zap.Logger
	httpLookups, tlsLookups *rate.Limiter // apart, so that who asks much by one way does not close the other
	looking                 chan struct{} // one for each connection to a name's address, see Client.meet

	// mu guards what follows; never held during I/O.
	mu      sync.Mutex
	pending map[string]*published // by object name: our own
	looked  map[string]lookup     // by object name: what the store said
}

// lookup is a remembered answer of the store; nil means that there was nothing.
type lookup struct {
	answer *published
	until  time.Time
}

// NewResponder makes a Responder over the store that all nodes share.
func NewResponder(store storage.Store, logger *zap.Logger) *Responder {
	return &Responder{
		store: store, log: logger.Named("challenges"),
		httpLookups: rate.NewLimiter(lookupRate, lookupBurst), tlsLookups: rate.NewLimiter(lookupRate, lookupBurst),
		looking: make(chan struct{}, selfParallel),
		pending: map[string]*published{}, looked: map[string]lookup{},
	}
}

// publish makes the answer known to all nodes. When it returns nil, the CA may be told.
func (r *Responder) publish(ctx context.Context, p *published) error {
	if p.cert != nil {
		key, err := x509.MarshalPKCS8PrivateKey(p.cert.PrivateKey)
		if err != nil {
			return fmt.Errorf("encode the challenge key: %w", err)
		}
		p.record.Cert, p.record.Key = p.cert.Certificate[0], key
	}
	data, err := json.Marshal(p.record)
	if err != nil {
		return fmt.Errorf("encode the challenge: %w", err)
	}
	if _, err := r.store.Put(ctx, p.object, data); err != nil {
		return ofStore(fmt.Errorf("store the challenge for %s: %w", p.record.Identifier, err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.pending, func(_ string, old *published) bool { return !time.Now().Before(old.record.Expires) }) // never retracted: the order was left undecided
	r.pending[p.object] = p
	delete(r.looked, p.object)
	return nil
}

// retract removes the answer, unless another has taken its place. The work's context may have ended. What stays behind after a fault is swept later.
func (r *Responder) retract(ctx context.Context, p *published) {
	if p == nil {
		return
	}
	r.mu.Lock()
	if r.pending[p.object] == p {
		delete(r.pending, p.object)
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	stored, err := r.read(ctx, p.object)
	if err == nil && stored.record.Token == p.record.Token {
		err = r.store.Delete(ctx, p.object)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("remove the challenge", zap.String("name", p.record.Identifier), zap.Error(err))
	}
}

// Sweep removes answers that are too old to be asked for: leftovers of crashes. Programs call it now and then.
func (r *Responder) Sweep(ctx context.Context) error {
	after := ""
	for {
		names, err := r.store.List(ctx, challengePrefix, after, 0)
		if err != nil {
			return fmt.Errorf("list challenges: %w", err)
		}
		for _, name := range names {
			after = name
			p, err := r.read(ctx, name)
			if err != nil || p.record.Expires.After(time.Now()) {
				continue
			}
			if err := r.store.Delete(ctx, name); err != nil {
				return fmt.Errorf("remove an old challenge: %w", err)
			}
		}
		if len(names) == 0 {
			return nil
		}
	}
}

// HTTP returns a handler that answers http-01 (RFC 8555 §8.3) and gives everything else to next: other paths, other methods than GET and HEAD, and tokens that
// are not pending for the request's Host.
func (r *Responder) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token, ok := strings.CutPrefix(req.URL.Path, httpPrefix)
		if !ok || req.Method != http.MethodGet && req.Method != http.MethodHead || !validToken(token) {
			next.ServeHTTP(w, req)
			return
		}
		p := r.find(req.Context(), ChallengeHTTP01, hostOf(req.Host), token)
		if p == nil || p.record.Type != ChallengeHTTP01 || p.record.Token != token {
			next.ServeHTTP(w, req)
			return
		}
		p.fetched()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(p.record.KeyAuth)))
		w.Header().Set("Cache-Control", "no-store")
		if req.Method == http.MethodGet {
			_, _ = io.WriteString(w, p.record.KeyAuth) // whoever went away does not matter
		}
	})
}

// Certificate answers tls-alpn-01 (RFC 8737): a handshake that offers acme-tls/1 and nothing else. It returns nil without error for every other handshake,
// and for names that have no challenge pending.
func (r *Responder) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !slices.Equal(hello.SupportedProtos, []string{"acme-tls/1"}) || hello.ServerName == "" {
		return nil, nil
	}
	sni := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	ctx := hello.Context()
	if ctx == nil { // a hello that did not come from crypto/tls
		ctx = context.Background()
	}
	p := r.find(ctx, ChallengeTLSALPN01, sni, "")
	if p == nil || p.cert == nil || sniOf(p.record.Identifier) != sni {
		return nil, nil
	}
	p.fetched()
	return p.cert, nil
}

func (p *published) fetched() { p.seeOnce.Do(func() { close(p.seen) }) }

// find returns the answer to what was asked, nil if there is none or nobody can tell.
func (r *Responder) find(ctx context.Context, typ, asked, token string) *published {
	object, now := challengeObject(typ, asked, token), time.Now()
	r.mu.Lock()
	p := r.pending[object]
	known, looked := r.looked[object]
	r.mu.Unlock()
	if p != nil && now.Before(p.record.Expires) {
		return p
	}
	if looked && now.Before(known.until) {
		return known.answer
	}
	// That there is no tls-alpn-01 answer is not remembered: it has no token that strangers cannot know, so whoever asks for a name every
	// two seconds would keep its answers from the CA.
	limiter, found, none := r.httpLookups, positiveTTL, negativeTTL
	if typ == ChallengeTLSALPN01 {
		limiter, found, none = r.tlsLookups, tlsTTL, 0
	}
	if !mayLook(ctx, limiter) {
		return nil
	}
	p, err := r.look(ctx, object)
	now = time.Now()
	ttl := found
	if err == nil {
		limiter.ReserveN(now, -1) // gives it back
	}
	if err != nil || !now.Before(p.record.Expires) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("look for a challenge", zap.Error(err))
		}
		p, ttl = nil, none
	}
	if ttl > 0 {
		r.remember(object, lookup{p, now.Add(ttl)}, now)
	}
	return p
}

// look reads an answer that somebody asks for, and again if the store is too slow: no answer is a failed attempt of the name.
func (r *Responder) look(ctx context.Context, object string) (*published, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	for {
		try, end := context.WithTimeout(ctx, lookupTry)
		p, err := r.read(try, object)
		slow := err != nil && try.Err() != nil
		end()
		if !slow || ctx.Err() != nil {
			return p, err
		}
	}
}

// mayLook waits for a turn, but not for long: a CA that is refused holds it against the name.
func mayLook(ctx context.Context, limiter *rate.Limiter) bool {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	return limiter.Wait(ctx) == nil
}

// remember keeps what the store said. When there is too much of it, what has passed goes; if nothing has, everything.
func (r *Responder) remember(object string, l lookup, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.looked) >= maxLookups {
		for name, old := range r.looked {
			if !now.Before(old.until) {
				delete(r.looked, name)
			}
		}
		if len(r.looked) >= maxLookups {
			clear(r.looked)
		}
	}
	r.looked[object] = l
}

// read reads an answer from the store.
func (r *Responder) read(ctx context.Context, object string) (*published, error) {
	data, _, err := r.store.Get(ctx, object)
	if err != nil {
		return nil, err
	}
	p := &published{object: object, seen: make(chan struct{})}
	if err := json.Unmarshal(data, &p.record); err != nil {
		return nil, fmt.Errorf("decode the challenge: %w", err)
	}
	if p.record.Type != ChallengeTLSALPN01 {
		return p, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(p.record.Key)
	if err != nil {
		return nil, errors.New("decode the challenge's key")
	}
	p.cert = &tls.Certificate{Certificate: [][]byte{p.record.Cert}, PrivateKey: key}
	return p, nil
}
