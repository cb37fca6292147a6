package storage

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// SealKey is a key that objects are sealed with. Printing or logging one by any verb, encoder or logger shows its ID only.
type SealKey struct {
	// ID is stored beside everything that the key seals, in clear. It has 1 to 64 of the letters, digits and "-._". Never another key under the same ID.
	ID string

	// Secret is the key. Sealing never uses it directly, see Sealed.
	Secret [32]byte
}

// maxKeyID bounds SealKey.ID.
const maxKeyID = 64

// maxKeyFile bounds what is read of a key's file: the key has 44 characters.
const maxKeyFile = 4 << 10

// ParseKeys reads the key ring of the configuration. Each entry says where a key is:
//
//	ID=file:/path        a file that only its owner can read (mode 0600 or less)
//	ID=env:NAME          an environment variable
//	ID=credential:NAME   a systemd credential (LoadCredential=NAME:/path in the unit)
//
// There it is one line: 32 bytes in base64, as `openssl rand -base64 32` prints them. The first key seals, all open. An error names each entry that
// is wrong, and never shows a key.
func ParseKeys(entries []string) ([]SealKey, error) {
	var keys []SealKey
	var faults []error
	for i, entry := range entries {
		key, err := parseKeyEntry(entry)
		if err == nil {
			err = fitsRing(keys, key)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("key %d of the ring: %w", i+1, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return keys, nil
}

func parseKeyEntry(entry string) (SealKey, error) {
	id, source, _ := strings.Cut(entry, "=")
	kind, where, _ := strings.Cut(source, ":")
	if keyIDFault(id) != "" || where == "" || !slices.Contains([]string{"file", "env", "credential"}, kind) {
		// Nothing of the entry is shown: somebody may have written the key itself.
		return SealKey{}, errors.New(`it must be an ID (letters, digits and "-._", at most 64), "=", and "file:/path", "env:NAME" or "credential:NAME"`)
	}
	line, err := readKey(kind, where)
	if err != nil {
		return SealKey{}, fmt.Errorf("%s: %w", id, err)
	}
	key := SealKey{ID: id}
	if err := decodeKey(&key.Secret, line); err != nil {
		return SealKey{}, fmt.Errorf("%s: %w", id, err)
	}
	return key, nil
}

func keyIDFault(id string) string {
	switch {
	case id == "":
		return "it is empty"
	case len(id) > maxKeyID:
		return fmt.Sprintf("it has more than %d characters", maxKeyID)
	}
	for i := range len(id) {
		if c := id[i]; !nameByte(c) || strings.IndexByte(":@=+*", c) >= 0 {
			return fmt.Sprintf("it contains %q", c)
		}
	}
	return ""
}

// fitsRing refuses what would make it ambiguous which key an ID means.
func fitsRing(ring []SealKey, key SealKey) error {
	for _, other := range ring {
		switch {
		case other.ID == key.ID:
			return fmt.Errorf("%s: there are two keys with this ID", key.ID)
		case other.Secret == key.Secret:
			return fmt.Errorf("%s: it is the same key as %s", key.ID, other.ID)
		}
	}
	return nil
}

// readKey returns what lies where the entry says.
func readKey(kind, where string) (string, error) {
	switch kind {
	case "file":
		return readKeyFile(where)
	case "credential":
		return readCredential(where)
	}
	line, ok := os.LookupEnv(where)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set", where)
	}
	return line, nil
}

func readKeyFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return "", fmt.Errorf("the key file %s is open to others (%v): run `chmod 600 %s`, and think about whether it was read", path, perm, path)
	}
	return readLine(f)
}

// readCredential reads what systemd hands to the service alone; the folder is closed to others by systemd.
func readCredential(name string) (string, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("there is no credential %s: systemd gives none ($CREDENTIALS_DIRECTORY is not set); write LoadCredential=%s:/path in the unit", name, name)
	}
	if !filepath.IsLocal(name) || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is no name of a credential", name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no credential %s: write LoadCredential=%s:/path in the unit", name, name)
	}
	if err != nil {
		return "", fmt.Errorf("read the credential: %w", err)
	}
	defer f.Close()
	return readLine(f)
}

func readLine(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	return string(data), nil
}

// decodeKey says of a wrong key only how long it is.
func decodeKey(secret *[32]byte, line string) error {
	const advice = "make one with `openssl rand -base64 32`"
	line = strings.TrimSpace(line)
	if line == "" {
		return fmt.Errorf("the key is empty: %s", advice)
	}
	if strings.ContainsAny(line, "\r\n") {
		return fmt.Errorf("the key has more than one line: %s", advice)
	}
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return fmt.Errorf("the key (%d characters) is not base64: %s", len(line), advice) // the cause would show a part of it
	}
	if len(raw) != len(secret) {
		return fmt.Errorf("the key has %d bytes, not %d: %s", len(raw), len(secret), advice)
	}
	copy(secret[:], raw)
	if *secret == [32]byte{} {
		return fmt.Errorf("the key is all zeros: %s", advice)
	}
	return nil
}

// The methods below stand between a key and everything that prints.

// String returns the ID.
func (k SealKey) String() string { return "key " + k.ID }

// Format implements fmt.Formatter: every verb prints String.
func (k SealKey) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// MarshalJSON implements json.Marshaler.
func (k SealKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (k SealKey) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("id", k.ID)
	return nil
}
