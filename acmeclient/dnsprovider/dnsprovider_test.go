package dnsprovider

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/libdns/rfc2136"
)

// secrets resolves "env:NAME" of a table.
func secrets(values map[string]string) func(string) (string, error) {
	return func(ref string) (string, error) {
		v, ok := values[strings.TrimPrefix(ref, "env:")]
		if !ok {
			return "", errors.New("read secret: not set")
		}
		return v, nil
	}
}

// Shaped like secrets, and looked for in everything that is said.
const (
	secretToken = "s3cr3t-token-value"
	secretKey   = "c2VjcmV0LXNlY3JldA=="
)

func TestNew_SaysAllFaultsAtOnceAndNoValue(t *testing.T) {
	values := map[string]string{"KEY": secretKey, "TOKEN": secretToken, "EMPTY": "", "ACCOUNTS": `{"a.test":{"username":"u","password":"` + secretToken + `"}}`}
	for _, tt := range []struct {
		name, kind string
		own        map[string]any
		want       []string // parts of the error; none: no error
	}{
		{"unknown provider", "route53", nil, []string{`provider "route53": acmedns, cloudflare, exec, rfc2136 are supported`}},
		{"rfc2136 with nothing", "rfc2136", nil, []string{"server is required", "key_name is required", "key is required"}},
		{"rfc2136 with faults", "rfc2136", map[string]any{"server": "a b", "key_name": "", "key": "env:TOKEN", "key_alg": "md5", "keys": secretToken},
			[]string{"server is not", "key_name is empty", "key: the secret is not base64", "key_alg: hmac-sha256", `unknown key "keys": rfc2136 has server, key_name, key_alg, key`}},
		{"rfc2136 with other types", "rfc2136", map[string]any{"server": int64(53), "key_name": "k", "key": []any{secretKey}}, []string{"server is not a string", "key is not a string"}},
		{"rfc2136 with a missing secret", "rfc2136", map[string]any{"server": "::1", "key_name": "k", "key": "env:NONE"}, []string{"key: read secret: not set"}},
		{"rfc2136", "rfc2136", map[string]any{"server": "ns.test", "key_name": "k", "key": "env:KEY", "key_alg": "HMAC-SHA512"}, nil},
		{"cloudflare with nothing", "cloudflare", map[string]any{"zone_token": "env:EMPTY"}, []string{"token is required", "zone_token: the secret is empty"}},
		{"cloudflare with control characters", "cloudflare", map[string]any{"token": "env:\n"}, []string{"token has control characters"}},
		{"cloudflare", "cloudflare", map[string]any{"token": "env:TOKEN", "zone_token": "env:TOKEN"}, nil},
		{"acmedns over http", "acmedns", map[string]any{"server": "http://acme-dns.test", "username": "u", "password": "env:TOKEN", "subdomain": "s"}, []string{"server is not an https URL"}},
		{"acmedns with a password in the URL", "acmedns", map[string]any{"server": "https://u:" + secretToken + "@acme-dns.test", "username": "u", "password": "env:TOKEN", "subdomain": "s"}, []string{"server is not an https URL"}},
		{"acmedns with half an account", "acmedns", map[string]any{"accounts": "env:ACCOUNTS"}, []string{`"a.test" lacks username, password or subdomain`}},
		{"acmedns with no JSON", "acmedns", map[string]any{"accounts": "env:TOKEN"}, []string{"accounts: they are not the JSON"}},
		{"acmedns with both", "acmedns", map[string]any{"accounts": "env:ACCOUNTS", "server": "https://acme-dns.test"}, []string{`unknown key "server": acmedns has accounts`}},
		{"acmedns", "acmedns", map[string]any{"server": "https://acme-dns.test/", "username": "u", "password": "env:TOKEN", "subdomain": "s"}, nil},
		{"exec with a relative path", "exec", map[string]any{"command": "hook.sh"}, []string{"command is not an absolute path"}},
		{"exec with an empty list", "exec", map[string]any{"command": []any{}, "timeout": "11m"}, []string{"command is empty", `timeout: write a duration such as "30s", at most 10m0s`}},
		{"exec with numbers", "exec", map[string]any{"command": []any{int64(1)}, "timeout": int64(30)}, []string{"command is not a list of strings", "timeout is not a string"}},
		{"exec", "exec", map[string]any{"command": []any{"/bin/hook", "zone"}, "timeout": "30s"}, nil},
		{"exec with a path", "exec", map[string]any{"command": "/bin/hook"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.kind, tt.own, secrets(values))
			if (err == nil) != (len(tt.want) == 0) || (p != nil) != (err == nil) {
				t.Fatalf("%v, %v", p, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
			if said := fmt.Sprint(err); strings.Contains(said, secretToken) || strings.Contains(said, secretKey) {
				t.Errorf("it says the secret: %v", said)
			}
		})
	}
}

func TestNew_CompletesTheAddressOfAServer(t *testing.T) {
	for server, want := range map[string]string{
		"ns.test": "ns.test:53", "ns.test:5353": "ns.test:5353", "192.0.2.1": "192.0.2.1:53", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:5353": "[2001:db8::1]:5353",
	} {
		p, err := New("rfc2136", map[string]any{"server": server, "key_name": "Name", "key": "env:KEY"}, secrets(map[string]string{"KEY": secretKey}))
		if err != nil {
			t.Errorf("%s: %v", server, err)
			continue
		}
		if got := p.(*rfc2136.Provider); got.Server != want || got.KeyName != "name" || got.KeyAlg != "hmac-sha256." {
			t.Errorf("%s: %q, %q, %q", server, got.Server, got.KeyName, got.KeyAlg)
		}
	}
}

func FuzzNew(f *testing.F) {
	for _, kind := range Kinds() {
		f.Add(kind, "server", "ns.test:53", "key", "c2VjcmV0")
		f.Add(kind, "command", "/bin/true", "timeout", "1m")
		f.Add(kind, "accounts", `{"a":{"username":"u","password":"p","subdomain":"s","server_url":"https://x"}}`, "token", "t")
	}
	f.Fuzz(func(t *testing.T, kind, key1, value1, key2, value2 string) {
		own := map[string]any{key1: value1, key2: value2, "key_name": "k", "username": "u", "subdomain": "s", "password": value2}
		p, err := New(kind, own, func(ref string) (string, error) { return ref, nil })
		if (p == nil) != (err != nil) {
			t.Errorf("%v, %v", p, err)
		}
	})
}
