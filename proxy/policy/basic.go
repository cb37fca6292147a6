package policy

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"time"
)

// BasicConfig asks for name and password (RFC 7617).
type BasicConfig struct {
	// Users are NAME:HASH, the hash bcrypt or argon2id. Required.
	Users []string

	// Realm is what browsers show. Empty means "Restricted".
	Realm string

	// Keep leaves the Authorization field in the request. Otherwise what is behind us never sees the password.
	Keep bool

	// Parallel is how many passwords are checked at one time; each takes a processor, and argon2id memory too. Zero means half of the processors.
	Parallel int

	Refuse Refuse
}

// Basic answers 401 to whoever has no name and password that it knows. Checking a password is meant to be slow, so what was right is remembered, as a keyed
// hash, and costs little the next time; what was wrong costs the full time again, one after another in [BasicConfig].Parallel places.
type Basic struct {
	cfg       BasicConfig
	challenge []string
	users     *users
	places    chan struct{}
	right     *memory
}

// checkWait is how long a request waits for its password to be checked before it is told to come again.
const checkWait = 10 * time.Second

var errBusy = errors.New("too many passwords to check")

// NewBasic returns an error for users that are none.
func NewBasic(cfg BasicConfig) (*Basic, error) {
	list, err := newUsers(cfg.Users)
	if err != nil {
		return nil, err
	}
	if cfg.Realm == "" {
		cfg.Realm = "Restricted"
	}
	if strings.ContainsFunc(cfg.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return nil, errors.New("policy: a realm is ASCII without quotation marks")
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = max(1, runtime.GOMAXPROCS(0)/2)
	}
	cfg.Refuse = cfg.Refuse.orPlain()
	return &Basic{
		cfg: cfg, users: list, places: make(chan struct{}, cfg.Parallel), right: newMemory(),
		challenge: []string{`Basic realm="` + cfg.Realm + `", charset="UTF-8"`}, // RFC 7617 §2.1
	}, nil
}

// Wrap lets through who is known.
func (b *Basic) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if ok && len(r.Header["Authorization"]) > 1 {
			ok = false // what is behind us may look at the other one
		}
		if ok {
			var err error
			if ok, err = b.check(r.Context(), name, password); err != nil {
				w.Header()["Retry-After"] = []string{"5"}
				b.cfg.Refuse(w, r, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		if !ok {
			w.Header()["Www-Authenticate"] = b.challenge
			b.cfg.Refuse(w, r, http.StatusUnauthorized, "no name and password that are known")
			return
		}
		if !b.cfg.Keep {
			delete(r.Header, "Authorization")
		}
		next.ServeHTTP(w, r)
	})
}

// check reports whether the password is the name's. An error says that nobody looked.
func (b *Basic) check(ctx context.Context, name, password string) (bool, error) {
	key := b.right.key(name, password)
	if b.right.has(key) {
		return true, nil
	}
	timer := time.NewTimer(checkWait)
	defer timer.Stop()
	select {
	case b.places <- struct{}{}:
	case <-timer.C:
		return false, errBusy
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-b.places }()
	if b.right.has(key) { // a browser asks for many things at once, and the first of them has been checked meanwhile
		return true, nil
	}
	hash, known := b.users.find(name)
	if !hash.matches(password) || !known {
		return false, nil
	}
	b.right.add(key)
	return true, nil
}
