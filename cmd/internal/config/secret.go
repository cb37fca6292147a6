package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Secret is a reference to a secret, "env:NAME" or "file:/path"; never the secret itself, so that a Config can be printed and logged.
type Secret struct{ ref string }

func parseSecret(s string) (Secret, error) {
	kind, where, ok := strings.Cut(s, ":")
	switch {
	case s == "":
		return Secret{}, nil
	case ok && kind == "env" && where != "":
		return Secret{s}, nil
	case ok && kind == "file" && filepath.IsAbs(where):
		return Secret{s}, nil
	case ok && kind == "file":
		return Secret{}, badValue(`write "file:/path"`, "the path of a secret is not absolute")
	}
	// The value is not shown: it may well be the secret.
	return Secret{}, badValue(`put it into the environment or a file and write "env:NAME" or "file:/path"`, "a secret stands here literally")
}

// ParseSecret takes a reference that stands among a DNS provider's own keys.
func ParseSecret(ref string) (Secret, error) { return parseSecret(ref) }

// Resolve reads the secret, without a line break at its end. The zero Secret is empty. Errors name the reference only.
func (s Secret) Resolve() (string, error) {
	kind, where, _ := strings.Cut(s.ref, ":")
	switch kind {
	case "env":
		v, ok := os.LookupEnv(where)
		if !ok || v == "" {
			return "", fmt.Errorf("read secret %s: the variable is not set", s.ref)
		}
		return v, nil
	case "file":
		b, err := os.ReadFile(where)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return "", nil
}

// String returns the reference.
func (s Secret) String() string { return s.ref }

// SealingKey is a key for private keys at rest: an id and where the key is.
type SealingKey struct {
	ID  string
	Ref string // "file:...", "env:..." or "credential:..."
}

func parseSealingKey(s string) (SealingKey, error) {
	const hint = `write "ID=file:/path", "ID=env:NAME" or "ID=credential:NAME"`
	id, ref, ok := strings.Cut(s, "=")
	kind, where, _ := strings.Cut(ref, ":")
	if !ok || id == "" || where == "" || kind != "env" && kind != "file" && kind != "credential" {
		return SealingKey{}, badValue(hint, "this is no reference to a key") // not shown: it may be the key
	}
	return SealingKey{ID: id, Ref: ref}, nil
}

func (k SealingKey) String() string { return k.ID + "=" + k.Ref }

// User is a name with the hash of its password. It shows the name alone: a hash can be guessed at.
type User struct{ name, hash string }

func parseUser(s string) (User, error) {
	const hint = `write "NAME:HASH" as gatelodge password prints it`
	name, hash, ok := strings.Cut(s, ":")
	if !ok || name == "" || !strings.HasPrefix(hash, "$argon2id$") && !strings.HasPrefix(hash, "$2") {
		return User{}, badValue(hint, "this is no user with the bcrypt or argon2id hash of a password") // not shown: it may be the password
	}
	return User{name, hash}, nil
}

// Entry returns NAME:HASH.
func (u User) Entry() string { return u.name + ":" + u.hash }

func (u User) String() string { return u.name + ":…" }
