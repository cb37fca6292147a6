package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const site = "[[site]]\nhosts = [%q]\nto = %q\n"

func TestLoad_MergesIncludedFilesInNameOrder(t *testing.T) {
	path := write(t, map[string]string{
		"gatelodge.toml":   "include = [\"conf.d/*.toml\", \"conf.d/20.toml\"]\n" + fmt.Sprintf(site, "main.example", "@app"),
		"conf.d/20.toml":   fmt.Sprintf(site, "second.example", "@app"),
		"conf.d/10.toml":   "[upstream.app]\nto = [\"http://127.0.0.1:3000\"]\n" + fmt.Sprintf(site, "first.example", "@app"),
		"conf.d/README.md": "not read",
	})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"main.example", "first.example", "second.example"}, c.Listed()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if u := c.Resolve()[0].Upstream; u.To[0].String() != "http://127.0.0.1:3000" || u.Timeouts.Connect != 3*time.Second {
		t.Errorf("the upstream is %+v", u)
	}
}

func TestLoad_NamesBothPlacesAcrossFiles(t *testing.T) {
	path := write(t, map[string]string{
		"gatelodge.toml": "include = [\"conf.d/*.toml\"]\n[upstream.app]\nto = [\"http://127.0.0.1:1\"]\n" + fmt.Sprintf(site, "example.com", "@app"),
		"conf.d/a.toml":  "[upstream.app]\nto = [\"http://127.0.0.1:2\"]\n" + fmt.Sprintf(site, "EXAMPLE.com", "@app"),
		"conf.d/b.toml":  "[listen]\nhttp = []\n[lisen]\n",
		"conf.d/c.toml":  "[[site]\n",
	})
	_, err := Load(path)
	if err == nil {
		t.Fatal("no fault")
	}
	got := strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", "")
	for _, want := range []string{
		`conf.d/a.toml:1:11: [upstream.app] is already at gatelodge.toml:2:11`,
		`conf.d/a.toml:4:10: the host "example.com" is listed twice, first at gatelodge.toml:5:10`,
		`conf.d/b.toml:1:2: "listen" cannot stand in an included file`,
		`conf.d/b.toml:3:2: unknown key "lisen"`,
		`conf.d/c.toml:1:7: `,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no fault begins with %s; there are\n%s", want, got)
		}
	}
}

func TestLoad_SaysWhichFilesAreMissing(t *testing.T) {
	path := write(t, map[string]string{
		"gatelodge.toml": `
[[ca]]
name = "corp"
directory = "https://ca.example/dir"
roots = ["roots.pem"]
[on_demand]
enabled = true
names_file = "names.txt"
[upstream.app]
to = ["https://127.0.0.1:1"]
tls = { roots = ["there.pem", "app.pem"] }
[[site]]
hosts = ["example.com"]
certificate = "own.pem"
key = "own.key"
to = "@app"
`,
		"there.pem": "",
	})
	_, err := Load(path)
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{"roots.pem", "names.txt", "app.pem", "own.pem", "own.key"} {
		if !strings.Contains(err.Error(), "open "+filepath.Join(filepath.Dir(path), want)+": no such file") {
			t.Errorf("%s is not missed in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "open "+filepath.Join(filepath.Dir(path), "there.pem")) {
		t.Errorf("there.pem is there:\n%v", err)
	}
}

func TestLoad_RefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "folder", filepath.Join(dir, "no.toml"): "no such file"} {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
	path := write(t, map[string]string{"gatelodge.toml": `include = ["missing.toml", "no*.toml", "[.toml"]`})
	_, err := Load(path)
	if err == nil || !strings.Contains(err.Error(), "missing.toml") || !strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "there is no file no*") {
		t.Errorf("error is %v", err)
	}
}

func TestForHost_IsAConfigurationWithoutAFile(t *testing.T) {
	for to, want := range map[string]string{
		"127.0.0.1:3000": "http://127.0.0.1:3000", ":3000": "http://127.0.0.1:3000", "3000": "http://127.0.0.1:3000",
		"https://app.internal": "https://app.internal:443", "[::1]:80": "http://[::1]:80", "app:8080": "http://app:8080",
	} {
		c, err := ForHost("Example.com", to)
		if err != nil {
			t.Errorf("--to %s: %v", to, err)
			continue
		}
		if s := c.Resolve()[0]; s.Name != "example.com" || s.Upstream.To[0].String() != want || !s.AccessLog {
			t.Errorf("--to %s: the site is %+v", to, s)
		}
	}
	for _, r := range []struct{ host, to, want string }{
		{"", "3000", "--host"}, {"a b", "3000", "--host"}, {"example.com:443", "3000", "ports are set by"}, {"example.com", "", "--to"},
		{"example.com", "@app", "--to"}, {"example.com", "unix:///run/app.sock", "--to"}, {"example.com", "127.0.0.1:3000/x", "path"}, {"*.example.com", "3000", "wildcard"},
	} {
		if _, err := ForHost(r.host, r.to); err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("--host %q --to %q: error is %v, want one with %q", r.host, r.to, err, r.want)
		}
	}
}

func TestConfig_ShowsNoSecretsWhenPrinted(t *testing.T) {
	c := parse(t, "[on_demand]\nenabled = true\nask = \"http://127.0.0.1/ask?token=hunter2\"\n")
	c.CAs[0].EAB.HMAC = Secret{"env:HMAC"} // as a later build may have it
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		got := fmt.Sprintf(verb, c)
		if strings.Contains(got, "hunter2") || !strings.Contains(got, `"ask":"http://127.0.0.1/ask?…"`) {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestRestartOnly_NamesWhatAReloadCannotChange(t *testing.T) {
	before := parse(t, "")
	if keys := before.RestartOnly(parse(t, "[listen]\ntrusted_proxies = []\nhttp = [\":80\"]\n")); len(keys) != 0 {
		t.Errorf("without a difference: %v", keys)
	}
	after := parse(t, `
[listen]
https    = []
redirect = false
[listen.limits]
body_bytes  = "1KiB"
idle_timeout = "1m"
[process]
drain = "1s"
[storage]
path = "/elsewhere"
[log]
level = "debug"
`)
	want := []string{"listen.https", "listen.limits.idle_timeout", "storage.path", "log.level"}
	if diff := cmp.Diff(want, before.RestartOnly(after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestResolve_GivesEachSiteItsLimits(t *testing.T) {
	c := parse(t, "[listen.limits]\nbody_bytes = \"1MiB\"\n"+fmt.Sprintf(site, "a.example", "http://127.0.0.1")+"body_bytes = \"2MiB\"\naccess_log = false\n"+fmt.Sprintf(site, "b.example", "http://127.0.0.1"))
	sites := c.Resolve()
	if sites[0].BodyBytes != 2<<20 || sites[1].BodyBytes != 1<<20 || sites[0].AccessLog || !sites[1].AccessLog {
		t.Errorf("sites are %+v", sites)
	}
	if sites[0].UpstreamName != sites[1].UpstreamName {
		t.Error("sites with the same URL do not share an upstream")
	}
}

func TestIssuers_FollowTheOrderOfTheDesign(t *testing.T) {
	c := parse(t, `
[[ca]]
name = "one"
directory = "https://one.example/dir"
[[ca]]
name = "corp"
directory = "https://corp.example/dir"
names = ["*.corp.example", "vpn.internal"]
[[ca]]
name = "two"
directory = "https://two.example/dir"
[internal_ca]
names = ["intranet"]
`)
	for _, r := range []struct {
		host     string
		restrict []string
		want     []string
	}{
		{"example.com", nil, []string{"one", "two"}},
		{"a.corp.example", nil, []string{"corp"}},
		{"deep.a.corp.example", nil, []string{"corp"}},
		{"corp.example", nil, []string{"one", "two"}},
		{"vpn.internal", nil, []string{"corp"}},
		{"other.internal", nil, []string{"internal"}},
		{"localhost", nil, []string{"internal"}},
		{"a.localhost", nil, []string{"internal"}},
		{"intranet", nil, []string{"internal"}},
		{"192.168.1.1", nil, []string{"internal"}},
		{"fd00::1", nil, []string{"internal"}},
		{"127.0.0.1", nil, []string{"internal"}},
		{"203.0.113.1", nil, []string{"one", "two"}},
		{"example.com", []string{"two"}, []string{"two"}},
		{"a.corp.example", []string{"two"}, []string{"two"}},
		{"localhost", []string{"one"}, []string{"one"}},
		{"example.com", []string{"two", "corp", "one"}, []string{"two", "one"}},
		{"localhost", []string{"internal", "one"}, []string{"internal", "one"}},
		{"example.com", []string{"internal"}, []string{}},
		{"example.com", []string{"corp"}, []string{}},
	} {
		if diff := cmp.Diff(r.want, c.Issuers(r.host, r.restrict)); diff != "" {
			t.Errorf("%s, only %v (-want +got):\n%s", r.host, r.restrict, diff)
		}
	}
}

func TestUserPaths_FollowTheEnvironment(t *testing.T) {
	t.Setenv("HOME", "/home/u")
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got, want := userPaths(), (paths{"/home/u/.local/share/gatelodge", "unix:///home/u/.local/share/gatelodge/admin.sock"}); got != want {
		t.Errorf("with a home: %+v, want %+v", got, want)
	}
	t.Setenv("XDG_DATA_HOME", "/data")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if got, want := userPaths(), (paths{"/data/gatelodge", "unix:///run/user/7/gatelodge/admin.sock"}); got != want {
		t.Errorf("with XDG folders: %+v, want %+v", got, want)
	}
	t.Setenv("HOME", "")
	t.Setenv("XDG_DATA_HOME", "relative")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := userPaths(); got != (paths{}) {
		t.Errorf("without a home: %+v", got)
	}
}

// FuzzParse: no text makes the loader panic; a fault points into the text and shows a line of it; what is accepted can be used and parsed again as it was.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.toml")
	for _, path := range append(files, "testdata/contract.toml", examplePath) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &parser{glob: func(string) ([]string, error) { return nil, nil }, read: os.ReadFile}
		c, err := p.parse("fuzz.toml", data)
		if err != nil {
			checkFaults(t, err.(Faults), string(data))
			return
		}
		if err := c.Explain(&strings.Builder{}); err != nil {
			t.Fatal(err)
		}
		if c.String() == "" || c.RestartOnly(c) != nil {
			t.Fatal("a configuration differs from itself")
		}
		for _, w := range c.Warnings() {
			checkFaults(t, Faults{w}, string(data))
		}
	})
}

func checkFaults(t *testing.T, faults Faults, text string) {
	lines := strings.Split(text, "\n")
	for i := range faults {
		f := &faults[i]
		if f.Line < 1 || f.Line > len(lines) || f.Column < 1 || f.Column > len(lines[f.Line-1])+1 || f.Width < 1 {
			t.Fatalf("%s is outside of %q", f.Place(), text)
		}
		if f.Problem == "" || strings.ContainsAny(f.Source, "\x1b\r\n") || f.Error() == "" {
			t.Fatalf("the fault is %+v", f)
		}
	}
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("gatelodge.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write makes files in a folder of their own and returns the path of gatelodge.toml.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "gatelodge.toml")
}
