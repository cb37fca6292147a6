package admin

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatelodge/cmd/internal/config"
)

func TestServer_ReloadsAndUpgradesOnlyWhoRunsWithTheFileThatIsMeant(t *testing.T) {
	dir := t.TempDir()
	ours, link, other := filepath.Join(dir, "ours.toml"), filepath.Join(dir, "link.toml"), filepath.Join(dir, "other.toml")
	for _, file := range []string{ours, other} {
		if err := os.WriteFile(file, []byte("[[site]]\nhosts = [\"a.internal\"]\nto = \"http://127.0.0.1:1\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("ours.toml", link); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(ours)
	if err != nil {
		t.Fatal(err)
	}
	times := 0
	_, client := start(t, func(c *Config) {
		c.Config = func() *config.Config { return cfg }
		c.Reload = func(context.Context) error { times++; return nil }
		c.Upgrade = func(context.Context) (int, error) { times++; return 7, nil }
	})
	for _, file := range []string{"", ours, link} {
		done, err := client.Reload(t.Context(), file)
		if err != nil || done.File != ours {
			t.Errorf("reload with %q: %+v, %v", file, done, err)
		}
		if next, err := client.Upgrade(t.Context(), file); err != nil || next.Pid != 7 {
			t.Errorf("upgrade with %q: %+v, %v", file, next, err)
		}
	}
	if times != 6 {
		t.Errorf("%d reloads and upgrades, want 6", times)
	}
	for _, file := range []string{other, filepath.Join(dir, "none.toml")} {
		_, err := client.Reload(t.Context(), file)
		_, err2 := client.Upgrade(t.Context(), file)
		for _, err := range []error{err, err2} {
			if err == nil || !strings.Contains(err.Error(), "runs with "+ours+", not with "+file) {
				t.Errorf("with %s: %v", file, err)
			}
		}
	}
	cfg = config.Default()
	if _, err := client.Reload(t.Context(), other); err == nil || !strings.Contains(err.Error(), "without a configuration file") {
		t.Errorf("of a process without a file: %v", err)
	}
	if times != 6 {
		t.Errorf("refused, but done %d times", times-6)
	}
}
