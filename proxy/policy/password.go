package policy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// passwordHash is what is kept of a password. There are two kinds, bcrypt ("$2a$", "$2b$", "$2y$") and argon2id in the PHC string format ("$argon2id$").
// Anything quicker to guess is refused, whatever other servers take.
type passwordHash struct {
	text string // for bcrypt

	// For argon2id (RFC 9106 §3.1); memory is in KiB.
	memory, time uint32
	lanes        uint8
	salt, sum    []byte
}

var errNoHash = errors.New(`neither bcrypt ("$2y$...") nor argon2id ("$argon2id$..."); gatelodge password makes one`)

// The bounds of what one guess may cost: a typing error in a hash must not take the machine down.
const (
	maxBcryptCost   = 16
	maxArgonMemory  = 1 << 20 // KiB
	maxArgonPasses  = 64
	minHashedLength = 16
)

func parseHash(s string) (*passwordHash, error) {
	if rest, ok := strings.CutPrefix(s, "$argon2id$"); ok {
		return parseArgon(rest)
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil || len(s) != 60 {
		return nil, errNoHash
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("the cost of bcrypt is %d, more than %d", cost, maxBcryptCost)
	}
	return &passwordHash{text: s}, nil
}

// parseArgon takes "v=19$m=65536,t=3,p=4$SALT$SUM", the last two in base64 without padding.
func parseArgon(s string) (*passwordHash, error) {
	h := &passwordHash{}
	parts := strings.Split(s, "$")
	if len(parts) != 4 || parts[0] != "v=19" {
		return nil, errNoHash
	}
	if _, err := fmt.Sscanf(parts[1], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.lanes); err != nil || parts[1] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.lanes) {
		return nil, errNoHash
	}
	if h.lanes == 0 || h.time == 0 || h.time > maxArgonPasses || h.memory < 8*uint32(h.lanes) || h.memory > maxArgonMemory {
		return nil, fmt.Errorf("m=%d,t=%d,p=%d is out of bounds: at most 1 GiB of memory and %d passes", h.memory, h.time, h.lanes, maxArgonPasses)
	}
	var err, err2 error
	h.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[2])
	h.sum, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[3])
	if err != nil || err2 != nil || len(h.salt) < 8 || len(h.sum) < minHashedLength {
		return nil, errNoHash
	}
	return h, nil
}

// matches takes as long for a wrong password as for the right one.
func (h *passwordHash) matches(password string) bool {
	if h.text != "" {
		return bcrypt.CompareHashAndPassword([]byte(h.text), []byte(password)) == nil
	}
	sum := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.lanes, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

// HashPassword makes an argon2id hash for [BasicConfig].Users, with the second recommended choice of RFC 9106 §4: 64 MiB, three passes, four lanes.
func HashPassword(password string) string {
	h := passwordHash{memory: 64 << 10, time: 3, lanes: 4, salt: make([]byte, 16)}
	_, _ = rand.Read(h.salt) // never fails
	h.sum = argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.lanes, 32)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.time, h.lanes, enc.EncodeToString(h.salt), enc.EncodeToString(h.sum))
}
