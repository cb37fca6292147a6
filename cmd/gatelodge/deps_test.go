package main_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A rule says what one room may import of ours, and why.
type rule struct {
	room    string   // package path, or with a final "/..." all below it
	allowed []string // of ours; "/..." as above
	reason  string
}

// The rules of DESIGN 1, most specific room first: the first that matches a package holds.
func importRules() []rule {
	return []rule{
		{"gatelodge/storage/...", []string{"gatelodge/storage/..."}, "storage knows bytes and names, nothing of what they mean"},
		{"gatelodge/acmeclient/devca/...", []string{"gatelodge/acmeclient/devca/..."}, "a CA that shared code with the client would share its mistakes"},
		{"gatelodge/acmeclient/dnsprovider", nil, "settings in, a libdns provider out"},
		{"gatelodge/acmeclient", []string{"gatelodge/storage"}, "a library of its own that another program could import"},
		{"gatelodge/proxy/hostname", nil, "the leaf that decides what is the same host"},
		{"gatelodge/proxy/rule", nil, "the leaf that decides what the rules of a route mean"},
		{"gatelodge/proxy/policy", []string{"gatelodge/proxy/rule"}, "what stands between anybody's requests and what it protects can be read and tested by itself"},
		{"gatelodge/proxy/upstream", nil, "no routing in it, and a request must not be able to reach an account key"},
		{"gatelodge/proxy/certs/budget", []string{"gatelodge/storage"}, "it counts for a fleet, and knows neither certificates nor CAs"},
		{"gatelodge/proxy/certs/memo", nil, "it remembers anything"},
		{"gatelodge/proxy/certs/permission", []string{"gatelodge/proxy/certs/memo", "gatelodge/proxy/hostname"}, "it knows names, and neither certificates nor where they lie"},
		{"gatelodge/proxy/certs", []string{"gatelodge/storage", "gatelodge/proxy/certs/budget", "gatelodge/proxy/certs/memo", "gatelodge/proxy/certs/permission", "gatelodge/proxy/hostname"}, "issuers only through its own interface of standard types"},
		{"gatelodge/proxy/certs/...", []string{"gatelodge/storage", "gatelodge/proxy/certs", "gatelodge/proxy/hostname"}, "issuers only through its own interface of standard types"},
		{"gatelodge/proxy/...", []string{"gatelodge/proxy", "gatelodge/proxy/upstream", "gatelodge/proxy/hostname", "gatelodge/proxy/rule", "gatelodge/proxy/proxytest"}, "a request must not be able to reach an account key"},
		{"gatelodge/cmd/internal/admin", []string{"gatelodge/cmd/internal/config"}, "whole-program concerns stand beside each other; admin shows the configuration"},
		{"gatelodge/cmd/internal/ticketkeys", []string{"gatelodge/storage"}, "keys from storage for whoever takes them"},
		{"gatelodge/cmd/internal/...", []string{"gatelodge/proxy/hostname", "gatelodge/proxy/rule"}, "whole-program concerns stand beside each other"},
		{"gatelodge/cmd/gatelodge", []string{"gatelodge/..."}, "serve.go is the only place that knows all parts"},
		{"gatelodge/cmd/bench/...", []string{"gatelodge/..."}, "load programs may use any part"},
	}
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

func TestRooms_ImportOnlyWhatTheDesignAllows(t *testing.T) {
	rules := importRules()
	for _, p := range goList(t, "./...") {
		i := slices.IndexFunc(rules, func(r rule) bool { return covers(r.room, p.ImportPath) })
		if i < 0 {
			t.Errorf("package %s is in no room of DESIGN 1", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "gatelodge/") && !slices.ContainsFunc(rules[i].allowed, func(a string) bool { return covers(a, imp) }) {
				t.Errorf("%s imports %s: not allowed, because %s", p.ImportPath, imp, rules[i].reason)
			}
			if strings.HasPrefix(imp, "github.com/letsencrypt/") {
				t.Errorf("%s imports %s: pebble is for tests only", p.ImportPath, imp)
			}
		}
	}
}

func TestBinary_DoesNotLinkTestCode(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/gatelodge") {
		if p.ImportPath == "testing" || strings.HasPrefix(p.ImportPath, "github.com/letsencrypt/pebble") || p.ImportPath == "net/http/httptest" {
			t.Errorf("the binary links %s", p.ImportPath)
		}
	}
}

func covers(pattern, pkg string) bool {
	root, deep := strings.CutSuffix(pattern, "/...")
	return pkg == root || deep && strings.HasPrefix(pkg, root+"/")
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
