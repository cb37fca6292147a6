package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestIdle_IsTheDefaultCAWhereNothingCanComeFromIt(t *testing.T) {
	for why, c := range map[string]struct {
		file string
		want bool
	}{
		"internal names only":      {"[[site]]\nhosts = [\"app.localhost\"]\nto = \"http://127.0.0.1:1\"", true},
		"a public name":            {"[[site]]\nhosts = [\"app.localhost\", \"example.com\"]\nto = \"http://127.0.0.1:1\"", false},
		"names on demand":          {"[on_demand]\nenabled = true\nask = \"http://127.0.0.1:1\"\n[[site]]\nhosts = [\"*\"]\non_demand = true\nto = \"http://127.0.0.1:1\"", false},
		"one that somebody named":  {"[[ca]]\nname = \"other\"\ndirectory = \"https://ca.example/dir\"\n[[site]]\nhosts = [\"app.localhost\"]\nto = \"http://127.0.0.1:1\"", false},
		"a host that goes through": {"[[site]]\nhosts = [\"example.com\"]\npassthrough = \"tcp://127.0.0.1:1\"", true},
	} {
		file := filepath.Join(t.TempDir(), "gatelodge.toml")
		if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(file)
		if err != nil {
			t.Fatalf("%s: %v", why, err)
		}
		if got := cfg.Idle(cfg.CAs[0]); got != c.want {
			t.Errorf("%s: %v, want %v", why, got, c.want)
		}
	}
}

func TestUnbudgeted_IsACAOfOurOwnThatNobodyWroteBudgetsFor(t *testing.T) {
	for directory, want := range map[string]bool{
		"https://127.0.0.1:14000/dir":                    true,
		"https://localhost:14000/dir":                    true,
		"https://pebble:14000/dir":                       true,
		"https://[::1]:14000/dir":                        true,
		"https://10.1.2.3/dir":                           true,
		"https://ca.internal/acme":                       true,
		"https://acme-v02.api.letsencrypt.org/directory": false,
		"https://ca.corp.example/acme":                   false,
		"https://192.0.2.1/dir":                          false,
		"https://[2001:db8::1]/dir":                      false,
	} {
		c := Default()
		ca := CA{Directory: directory}
		c.Issue.Budget.InFlight = 7 // is about our own machine
		if got := c.Unbudgeted(ca); got != want {
			t.Errorf("%s: %v, want %v", directory, got, want)
		}
		c.Issue.Budget.PerTenant.Count++
		if c.Unbudgeted(ca) {
			t.Errorf("%s: the budgets that somebody wrote do not hold", directory)
		}
		ca.DirectoryV1 = "https://acme-v01.api.letsencrypt.org/directory"
		if c.Issue.Budget = Default().Issue.Budget; c.Unbudgeted(ca) {
			t.Errorf("%s: one of two addresses is public", directory)
		}
	}
}
