package policy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
)

// users are names with what is kept of their passwords. They do not change.
type users struct {
	seed   maphash.Seed
	byName map[string]*passwordHash
	list   []*passwordHash
}

// ParseUsers reads users as htpasswd writes them, NAME:HASH a line; empty lines and those that begin with # are left out. Errors name file and line, all of them in one
// go, and never show a hash, or what may be a password.
func ParseUsers(file string, text []byte) ([]string, error) {
	var list []string
	var faults []error
	first := map[string]int{} // the lines of the names
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, err := parseUser(line)
		if before := first[name]; err == nil && before > 0 {
			err = fmt.Errorf("the user %q is in line %d already", name, before)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		first[name] = n
		list = append(list, line)
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", file, err))
	}
	return list, errors.Join(faults...)
}

func newUsers(list []string) (*users, error) {
	u := &users{seed: maphash.MakeSeed(), byName: make(map[string]*passwordHash, len(list))}
	for i, s := range list {
		name, hash, err := parseUser(s)
		if err != nil {
			return nil, fmt.Errorf("policy: user %d: %w", i+1, err)
		}
		if u.byName[name] != nil {
			return nil, fmt.Errorf("policy: the user %q is there twice", name)
		}
		u.byName[name] = hash
		u.list = append(u.list, hash)
	}
	if len(u.list) == 0 {
		return nil, errors.New("policy: there are no users")
	}
	return u, nil
}

func parseUser(s string) (name string, hash *passwordHash, err error) {
	name, text, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return "", nil, errors.New("a user is written NAME:HASH")
	}
	if hash, err = parseHash(text); err != nil {
		return "", nil, fmt.Errorf("the hash of %q: %w", name, err)
	}
	return name, hash, nil
}

// find returns the hash to check a password against. For an unknown name it is somebody's, always the same one's: the check then takes as long as for a name
// that exists, and comes to nothing.
func (u *users) find(name string) (_ *passwordHash, known bool) {
	if h := u.byName[name]; h != nil {
		return h, true
	}
	return u.list[maphash.String(u.seed, name)%uint64(len(u.list))], false
}
