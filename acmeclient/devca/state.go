package devca

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The statuses of RFC 8555 §7.1.6.
const (
	statusPending     = "pending"
	statusReady       = "ready"
	statusProcessing  = "processing"
	statusValid       = "valid"
	statusInvalid     = "invalid"
	statusDeactivated = "deactivated"
	statusExpired     = "expired"
	statusRevoked     = "revoked"
)

// The identifier types.
const (
	identDNS = "dns"
	identIP  = "ip" // RFC 8738
)

type identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// account is immutable: a change replaces it, on disk first.
type account struct {
	ID        int64           `json:"id"`
	Key       jose.JSONWebKey `json:"key"`
	Status    string          `json:"status"`
	Contact   []string        `json:"contact"`         // over v1 an emptied list differs from none
	Terms     string          `json:"terms,omitempty"` // the URL agreed to
	InitialIP string          `json:"initialIp"`
	CreatedAt time.Time       `json:"createdAt"`
}

// certificate is immutable like account.
type certificate struct {
	Serial  string       `json:"serial"`
	Account int64        `json:"account"`
	Order   int64        `json:"order,omitempty"` // 0: issued over v1
	Names   []identifier `json:"names"`
	DER     []byte       `json:"der"`
	Chain   string       `json:"chain"` // PEM, leaf first

	IssuedAt  time.Time `json:"issuedAt"`
	RevokedAt time.Time `json:"revokedAt,omitzero"`
	Reason    int       `json:"reason,omitempty"`

	// ReplacedBy is the order that named this certificate in "replaces" (RFC 9773 §5); 0: none.
	ReplacedBy int64 `json:"replacedBy,omitempty"`
}

type challenge struct {
	id        string
	kind      string // http-01, ...
	status    string
	err       *problem
	validated time.Time          // when it was decided, either way
	record    []validationRecord // what was connected to, for v1
	answered  string             // the key authorization, for v1
}

type authorization struct {
	id         int64
	account    int64
	ident      identifier
	wildcard   bool
	token      string // one for all its challenges
	status     string // pending, valid, invalid, deactivated; see statusAt
	created    time.Time
	expires    time.Time
	challenges []*challenge
	orders     []*order // that need it
}

// statusAt adds what time does (RFC 8555 §7.1.6): pending ends in invalid, valid in expired.
func (z *authorization) statusAt(now time.Time) string {
	if now.Before(z.expires) {
		return z.status
	}
	switch z.status {
	case statusPending:
		return statusInvalid
	case statusValid:
		return statusExpired
	}
	return z.status
}

func (z *authorization) challenge(id string) *challenge {
	for _, c := range z.challenges {
		if c.id == id {
			return c
		}
	}
	return nil
}

// name is the identifier as in an order or a CSR.
func (z *authorization) name() string {
	if z.wildcard {
		return "*." + z.ident.Value
	}
	return z.ident.Value
}

type order struct {
	id         int64
	account    int64
	names      []identifier
	authzs     []*authorization
	expires    time.Time
	profile    string
	replaces   string // as the client sent it
	processing bool
	serial     string   // once issued
	err        *problem // once failed
}

func (o *order) statusAt(now time.Time) string {
	switch {
	case o.err != nil:
		return statusInvalid
	case o.serial != "":
		return statusValid
	case o.processing:
		return statusProcessing
	case !now.Before(o.expires):
		return statusInvalid
	}
	status := statusReady
	for _, z := range o.authzs {
		switch z.statusAt(now) {
		case statusValid:
		case statusPending:
			if status == statusReady {
				status = statusPending
			}
		default:
			status = statusInvalid
		}
	}
	return status
}

// state is what the CA knows. Records that live on disk too are replaced, never changed; orders and authorizations are changed under mu.
type state struct {
	mu       sync.Mutex // guards everything below; never held during I/O
	lastID   int64      // of orders and authorizations
	lastAcct int64
	accounts map[int64]*account
	byKey    map[string]int64 // account by thumbprint
	orders   map[int64]*order
	authzs   map[int64]*authorization
	certs    map[string]*certificate // by serial
	blocked  map[string]bool         // public keys known to be compromised, by SPKI

	// writeMu makes changes to what is on disk one after the other; held across the write, and mu is taken inside it, never the other way round.
	writeMu sync.Mutex
}

// idsPerRun separates the ids of one start from those of the next, so that an order URL from before a restart is not another order now.
const idsPerRun = 1_000_000

func newState(d disk, r run) (*state, error) {
	s := &state{
		lastID:   (r.Starts - 1) * idsPerRun,
		accounts: make(map[int64]*account),
		byKey:    make(map[string]int64),
		orders:   make(map[int64]*order),
		authzs:   make(map[int64]*authorization),
		certs:    make(map[string]*certificate),
		blocked:  make(map[string]bool),
	}
	err := readAll(d, "accounts", func(a *account) error {
		if !a.Key.Valid() || !a.Key.IsPublic() {
			return fmt.Errorf("account %d has no public key", a.ID)
		}
		s.accounts[a.ID] = a
		s.byKey[thumbprint(&a.Key)] = a.ID
		s.lastAcct = max(s.lastAcct, a.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = readAll(d, "certs", func(c *certificate) error {
		s.certs[c.Serial] = c
		if c.Reason == reasonKeyCompromise {
			s.blocked[spkiOf(c.DER)] = true
		}
		return nil
	})
	return s, err
}

func thumbprint(k *jose.JSONWebKey) string {
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "" // only for keys that accountKeyProblem refuses
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

func (s *state) nextIDLocked() int64 {
	s.lastID++
	return s.lastID
}

func (s *state) account(id int64) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[id]
}

func (s *state) accountByKey(k *jose.JSONWebKey) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[s.byKey[thumbprint(k)]]
}

// addAccount stores a new account, unless there is one with its key: then it returns that one and false.
func (ca *CA) addAccount(a *account) (*account, bool, error) {
	s := ca.state
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if old := s.accountByKey(&a.Key); old != nil {
		return old, false, nil
	}
	s.mu.Lock()
	a.ID = s.lastAcct + 1
	s.mu.Unlock()
	if err := ca.disk.saveAccount(a); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAcct = a.ID
	s.accounts[a.ID] = a
	s.byKey[thumbprint(&a.Key)] = a.ID
	return a, true, nil
}

// changeAccount applies a change to a copy and puts that in the account's place. The change may refuse by an error.
func (ca *CA) changeAccount(id int64, change func(*account) error) (*account, error) {
	s := ca.state
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	old := s.account(id)
	a := *old
	a.Contact = slices.Clone(old.Contact)
	if err := change(&a); err != nil {
		return nil, err
	}
	if err := ca.disk.saveAccount(&a); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, thumbprint(&old.Key))
	s.byKey[thumbprint(&a.Key)] = id
	s.accounts[id] = &a
	return &a, nil
}

// changeCertificate is changeAccount for certificates; a nil change stores a new one.
func (ca *CA) changeCertificate(c *certificate, change func(*certificate) error) error {
	s := ca.state
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if change != nil {
		s.mu.Lock()
		changed := *s.certs[c.Serial]
		s.mu.Unlock()
		if err := change(&changed); err != nil {
			return err
		}
		c = &changed
	}
	if err := ca.disk.saveCertificate(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs[c.Serial] = c
	return nil
}

func (s *state) certificate(serial string) *certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certs[serial]
}

// newAuthorizationLocked makes a pending authorization with the challenges that can be validated here.
func (s *state) newAuthorizationLocked(acct int64, name identifier, kinds []string, now time.Time) *authorization {
	z := &authorization{
		id: s.nextIDLocked(), account: acct, ident: name, token: randomString(32),
		status: statusPending, created: now, expires: now.Add(pendingAuthzLifetime).Truncate(time.Second),
	}
	if base, ok := cutWildcard(name.Value); ok {
		z.ident.Value, z.wildcard = base, true
	}
	for _, kind := range kinds {
		if kind == challengeDNS && name.Type == identIP || kind != challengeDNS && z.wildcard {
			continue
		}
		z.challenges = append(z.challenges, &challenge{id: randomString(4), kind: kind, status: statusPending})
	}
	s.authzs[z.id] = z
	return z
}

// reusableLocked finds the account's newest authorization of that name in a status.
func (s *state) reusableLocked(acct int64, name identifier, status string, until time.Time) *authorization {
	base, wild := cutWildcard(name.Value)
	var found *authorization
	for _, z := range s.authzs {
		if z.account == acct && z.ident == (identifier{name.Type, base}) && z.wildcard == wild && z.statusAt(until) == status &&
			(found == nil || z.id > found.id) {
			found = z
		}
	}
	return found
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }
