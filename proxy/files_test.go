package proxy_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// folder makes files below a temporary folder, and returns the folder "www" in it.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "www")
}

func TestFiles_ServesWhatIsThereAndNothingElse(t *testing.T) {
	www := folder(t, map[string]string{
		"www/index.html": "<p>home", "www/app.js": "app()", "www/a b/caf\u00e9.txt": "text", "www/sub/index.html": "sub", "www/empty/x": "x", "www/page.HTML": "<p>",
		"www/.env": "SECRET", "www/.git/config": "SECRET", "www/.well-known/security.txt": "mail", "www/sub/.hidden/x": "SECRET", "outside/x": "SECRET", "www/noext": "<script>",
	})
	for from, to := range map[string]string{"up": "../outside", "abs": filepath.Join(www, "../outside"), "out.txt": "../outside/x", "in.txt": "app.js", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(www, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(www, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := routed(t, proxy.Route{Match: paths("/assets/*"), Files: www}, proxy.Route{Match: paths("/favicon.ico", "/app.js", "/"), Files: www})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			target, body, kind string
			status             int
		}{
			{"/assets/app.js", "app()", "text/javascript; charset=utf-8", 200}, {"/assets/app.js?v=1", "app()", "", 200}, {"/assets/a%20b/caf%C3%A9.txt", "text", "text/plain; charset=utf-8", 200},
			{"/assets/", "<p>home", "text/html; charset=utf-8", 200}, {"/assets/sub/", "sub", "", 200}, {"/assets/index.html", "<p>home", "", 200}, {"/assets/in.txt", "app()", "", 200},
			{"/app.js", "app()", "", 200}, {"/", "<p>home", "", 200}, {"/assets/.well-known/security.txt", "mail", "", 200}, {"/assets/page.HTML", "<p>", "text/html; charset=utf-8", 200},
			{"/assets/noext", "<script>", "application/octet-stream", 200},
			{"/assets", "", "", 307}, {"/assets/sub", "", "", 307},
			{"/assets/none", "", "", 404}, {"/assets/empty/", "", "", 404}, {"/favicon.ico", "", "", 404}, {"/assets/app.js/", "", "", 404}, {"/assets/app.js/x", "", "", 404},
			{"/assets/.env", "", "", 404}, {"/assets/.git/config", "", "", 404}, {"/assets/%2eenv", "", "", 404}, {"/assets/sub/.hidden/x", "", "", 404},
			{"/assets/up/x", "", "", 404}, {"/assets/abs/x", "", "", 404}, {"/assets/out.txt", "", "", 404}, {"/assets/loop", "", "", 404}, {"/assets/fifo", "", "", 404},
			{"/assets/sub%2findex.html", "", "", 404}, {"/assets//app.js", "", "", 404}, {"/assets/sub//index.html", "", "", 404},
			{"/assets/../outside/x", "", "", 400}, {"/assets/%2e%2e/outside/x", "", "", 400}, {"/assets/..%2foutside/x", "", "", 400}, {"/assets/..%5coutside", "", "", 400}, {"/assets/x%00.js", "", "", 400},
		} {
			r, _ := http.NewRequest("GET", mode.URL("a.test", "/"), nil)
			r.URL.Opaque, r.URL.RawQuery, _ = strings.Cut(c.target, "?")
			if i := strings.IndexByte(c.target, '?'); i >= 0 {
				r.URL.Opaque, r.URL.RawQuery = c.target[:i], c.target[i+1:]
			}
			res, body := proxytest.Do(t, p.Client(mode), r)
			if res.StatusCode != c.status || c.status == 200 && body != c.body || c.kind != "" && res.Header.Get("Content-Type") != c.kind || strings.Contains(body, "SECRET") {
				t.Errorf("%s: %d %q %s", c.target, res.StatusCode, body, res.Header.Get("Content-Type"))
			}
			if c.status == 307 && res.Header.Get("Location") != c.target+"/" {
				t.Errorf("%s: to %s", c.target, res.Header.Get("Location"))
			}
			if c.status == 200 && res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %v", c.target, res.Header)
			}
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			r, _ := http.NewRequest(method, mode.URL("a.test", "/assets/app.js"), nil)
			if res, _ := proxytest.Do(t, p.Client(mode), r); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
			}
		}
	})
}

func TestFiles_AnswersRangesAndConditions(t *testing.T) {
	www := folder(t, map[string]string{"www/f.txt": "0123456789"})
	file := filepath.Join(www, "f.txt")
	changed := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(file, changed, changed); err != nil {
		t.Fatal(err)
	}
	p := routed(t, proxy.Route{Files: www})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		get := func(fields ...string) (*http.Response, string) {
			r, _ := http.NewRequest("GET", mode.URL("a.test", "/f.txt"), nil)
			for i := 0; i < len(fields); i += 2 {
				r.Header.Set(fields[i], fields[i+1])
			}
			return proxytest.Do(t, p.Client(mode), r)
		}
		res, _ := get()
		tag, modified := res.Header.Get("Etag"), res.Header.Get("Last-Modified")
		if len(tag) < 4 || tag[0] != '"' || modified != changed.UTC().Format(http.TimeFormat) || res.ContentLength != 10 || res.Header.Get("Accept-Ranges") != "bytes" {
			t.Fatalf("%v", res.Header)
		}
		for _, c := range []struct {
			fields []string
			status int
			body   string
		}{
			{[]string{"Range", "bytes=2-4"}, 206, "234"}, {[]string{"Range", "bytes=-3"}, 206, "789"}, {[]string{"Range", "bytes=99-"}, 416, ""}, {[]string{"Range", "bytes=4-2"}, 416, ""},
			{[]string{"Range", "Bytes=2-4"}, 206, "234"}, {[]string{"Range", "lines=1-2"}, 200, "0123456789"}, {[]string{"Range", "2-4"}, 200, "0123456789"},
			{[]string{"If-None-Match", tag}, 304, ""}, {[]string{"If-None-Match", `"x"`}, 200, "0123456789"}, {[]string{"If-Match", `"x"`}, 412, ""}, {[]string{"If-Match", tag}, 200, "0123456789"},
			{[]string{"If-Modified-Since", modified}, 304, ""}, {[]string{"If-Unmodified-Since", changed.Add(-time.Hour).UTC().Format(http.TimeFormat)}, 412, ""},
			{[]string{"Range", "bytes=0-0", "If-Range", tag}, 206, "0"}, {[]string{"Range", "bytes=0-0", "If-Range", `"x"`}, 200, "0123456789"},
		} {
			res, body := get(c.fields...)
			if res.StatusCode != c.status || (c.status == 200 || c.status == 206) && body != c.body {
				t.Errorf("%v: %d %q", c.fields, res.StatusCode, body)
			}
		}
		r, _ := http.NewRequest("HEAD", mode.URL("a.test", "/f.txt"), nil)
		r.Header.Set("Range", "bytes=2-4")
		if res, body := proxytest.Do(t, p.Client(mode), r); res.StatusCode != 200 || body != "" || res.ContentLength != 10 {
			t.Errorf("HEAD: %d %q %d", res.StatusCode, body, res.ContentLength)
		}
	})
}

// A release is put in place by a symbolic link that is replaced, while we run.
func TestFiles_FollowsTheFolderThatIsThereNow(t *testing.T) {
	www := folder(t, map[string]string{"www/v1/index.html": "one", "www/v2/index.html": "two"})
	current := filepath.Join(www, "current")
	p := routed(t, proxy.Route{Files: current})
	client := p.Client(proxytest.H1)
	for _, c := range []struct{ to, want string }{{"v1", "one"}, {"v2", "two"}} {
		if err := os.Symlink(c.to, current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
		if res, body := proxytest.Get(t, client, proxytest.H1.URL("a.test", "/")); res.StatusCode != 200 || body != c.want {
			t.Errorf("%s: %d %q", c.to, res.StatusCode, body)
		}
	}
}

func TestFiles_AFallbackStandsInForWhatIsNotThere(t *testing.T) {
	www := folder(t, map[string]string{"www/index.html": "app", "www/app.js": "js", "www/.env": "SECRET"})
	p := routed(t, proxy.Route{Files: www, Fallback: "index.html"})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for target, want := range map[string]string{"/": "app", "/app.js": "js", "/some/view": "app", "/none.js": "app"} {
			if res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", target)); res.StatusCode != 200 || body != want {
				t.Errorf("%s: %d %q", target, res.StatusCode, body)
			}
		}
		if res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/.env")); res.StatusCode != 404 || strings.Contains(body, "SECRET") {
			t.Errorf("a dotfile: %d %q", res.StatusCode, body)
		}
	})
}

func TestFiles_ABigOneArrivesWhole(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<18)
	p := routed(t, proxy.Route{Files: folder(t, map[string]string{"www/big.bin": big})})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := p.Client(mode).Get(mode.URL("a.test", "/big.bin"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != big {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	})
}
