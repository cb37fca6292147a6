package storage_test

import (
	"errors"
	"strings"
	"testing"

	"gatelodge/storage"
)

func TestCheckName_TakesWhatTheOtherRoomsStore(t *testing.T) {
	host := strings.Repeat(strings.Repeat("x", 62)+".", 4)[:251] + ".y"
	for _, name := range []string{
		"certs/" + host, "acme/" + strings.Repeat("c", 100) + "/challenges/" + host, "certs/*.example.com", "certs/192.0.2.1", "certs/2001:db8::1",
		"certs/xn--bcher-kva.example", "acme/le/account", "tokens/" + "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", "users/ops+acme@example.com",
		"quarantine/" + strings.Repeat("a/", 255) + "bb",
	} {
		if err := storage.CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckName_SaysWhatIsWrong(t *testing.T) {
	for name, want := range map[string]string{
		"": "empty", "a//b": "empty", "a/": "empty", "/a": "empty", "a/..": "begins with a dot", ".": "begins with a dot", "a b": `contains ' '`,
		"a%2f": `contains '%'`, "a,b": `contains ','`, strings.Repeat("a", 256): "256 bytes", strings.Repeat("ab/", 200) + "a": "too long", "Ü": "contains",
	} {
		if err := storage.CheckName(name); !errors.Is(err, storage.ErrName) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
}
