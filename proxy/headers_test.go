package proxy_test

import (
	"bufio"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatelodge/proxy/proxytest"
)

// received parses what a raw upstream got into its request line and fields.
func received(t *testing.T, raw string) (string, textproto.MIMEHeader) {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(raw)))
	line, err := r.ReadLine()
	if err != nil {
		t.Fatal(err)
	}
	h, err := r.ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	return line, h
}

// rawRequest makes an h1 client write the fields as they are.
func rawRequest(fields string) string {
	return "GET / HTTP/1.1\r\nHost: a.test\r\n" + fields + "Connection: close\r\n\r\n"
}

func TestHeaders_UpstreamGetsOnlyWhatIsForIt(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
		r.Header = http.Header{
			"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"gopher"}, "X-Forwarded-Host": {"evil.test"}, "X-Forwarded-Prefix": {"/x"},
			"X-Real-Ip": {"1.2.3.4"}, "Forwarded": {"for=1.2.3.4"}, "X-Request-Id": {"mine"}, "X_forwarded_for": {"1.2.3.4"}, "Remote_user": {"root"},
			"Proxy-Authorization": {"secret"}, "Authorization": {"Bearer kept"}, "Cookie": {"a=b"}, "User-Agent": nil,
		}
		if !mode.H2 {
			r.Header["Keep-Alive"], r.Header["Proxy-Connection"] = []string{"1"}, []string{"keep-alive"}
		}
		_, _ = proxytest.Do(t, p.Client(mode), r)
		_, h := received(t, up.Next(t))
		proto := "http"
		if mode.TLS {
			proto = "https"
		}
		id := h.Get("X-Request-Id")
		want := map[string]string{
			"Host": "a.test", "Authorization": "Bearer kept", "Cookie": "a=b",
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": proto, "X-Forwarded-Host": "a.test", "X-Request-Id": id, "Via": h.Get("Via"),
		}
		version := "1.1"
		if mode.H2 {
			version = "2.0"
		} else if mode.H3 {
			version = "3.0"
		}
		if via := regexp.MustCompile(`^(\d\.\d) gatelodge-[a-z0-9]{12}$`).FindStringSubmatch(h.Get("Via")); via == nil || via[1] != version {
			t.Errorf("Via = %q", h["Via"])
		}
		if id == "mine" || len(id) < 20 {
			t.Errorf("request id = %q", id)
		}
		got := map[string]string{}
		for k, v := range h {
			got[k] = strings.Join(v, "|")
		}
		if !maps.Equal(got, want) {
			t.Errorf("upstream got %v\nwant %v", got, want)
		}
	})
}

func TestHeaders_ConnectionCannotRemoveOurOwn(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	answer := p.Raw(proxytest.H1, "a.test", rawRequest("Connection: X-Forwarded-For, X-Forwarded-Host, X-Gone\r\nX-Gone: 1\r\nX-Stays: 1\r\n"))
	if !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Fatal(answer)
	}
	_, h := received(t, up.Next(t))
	if h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("X-Forwarded-Host") != "a.test" || h.Get("X-Gone") != "" || h.Get("X-Stays") != "1" {
		t.Errorf("upstream got %v", h)
	}
}

func TestHeaders_ATrustedProxyIsBelieved(t *testing.T) {
	up := proxytest.NewRawUpstream(t, proxytest.Reply(proxytest.OK))
	set := proxytest.Sites(proxytest.Site(t, up.URL, "a.test"))
	set.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	p := proxytest.Start(t, set, nil)
	for _, c := range []struct{ name, fields, chain, proto, host, id, client string }{
		{
			"the chain grows by the peer", "X-Forwarded-For: 198.51.100.7, 10.1.1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: www.test:8080\r\nX-Request-Id: abc-1\r\n",
			"198.51.100.7, 10.1.1.1, 127.0.0.1", "http", "www.test:8080", "abc-1", "198.51.100.7",
		},
		{"a client behind it cannot pretend", "X-Forwarded-For: 1.1.1.1, 198.51.100.7\r\n", "1.1.1.1, 198.51.100.7, 127.0.0.1", "https", "a.test", "", "198.51.100.7"},
		{"what is no address ends the chain", "X-Forwarded-For: 1.1.1.1, evil\r\nX-Forwarded-For: 198.51.100.7:1234\r\n", "198.51.100.7, 127.0.0.1", "https", "a.test", "", "198.51.100.7"},
		{"nonsense is not passed on", "X-Forwarded-For: <x>\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-Host: a@b\r\nX-Request-Id: a b\r\n", "127.0.0.1", "https", "a.test", "", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = p.Access.TakeAll()
			if a := p.Raw(proxytest.H1, "a.test", rawRequest(c.fields)); !strings.HasPrefix(a, "HTTP/1.1 200") {
				t.Fatal(a)
			}
			_, h := received(t, up.Next(t))
			if got := h["X-Forwarded-For"]; !slices.Equal(got, []string{c.chain}) {
				t.Errorf("X-Forwarded-For = %q, want %q", got, c.chain)
			}
			if h.Get("X-Forwarded-Proto") != c.proto || h.Get("X-Forwarded-Host") != c.host || c.id != "" && h.Get("X-Request-Id") != c.id || c.id == "" && len(h.Get("X-Request-Id")) < 20 {
				t.Errorf("upstream got %v", h)
			}
			eventually(t, "the access log has the request", func() bool { return p.Access.Len() == 1 })
			if got := p.Access.All()[0].ContextMap()["client"]; got != c.client {
				t.Errorf("client in the log = %v, want %s", got, c.client)
			}
		})
	}
}

func TestHeaders_NothingHopByHopComesBack(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 200 OK\r\nConnection: X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"+
		"Upgrade: h2c\r\nX-Stays: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok"))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, _ := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
		for _, gone := range []string{"X-Gone", "Keep-Alive", "Proxy-Connection", "Upgrade", "Connection"} {
			if v, ok := res.Header[gone]; ok {
				t.Errorf("%s: %q came through", gone, v)
			}
		}
		if res.Header.Get("X-Stays") != "1" || len(res.Header["Set-Cookie"]) != 2 {
			t.Errorf("header = %v", res.Header)
		}
	})
}

func TestHeaders_NothingIsAdded(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	_ = p.Raw(proxytest.Plain, "", rawRequest(""))
	line, h := received(t, up.Next(t))
	got := slices.Sorted(maps.Keys(h))
	if want := []string{"Host", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"}; line != "GET / HTTP/1.1" || !slices.Equal(got, want) {
		t.Errorf("upstream got %s with %v", line, got)
	}
}

func TestHeaders_BigOnesPassAndTooBigOnesDoNot(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for size, want := range map[int]int{30 << 10: 200, 60 << 10: 200, 70 << 10: 431} {
			r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
			r.Header.Set("Cookie", "sso="+strings.Repeat("x", size))
			client := p.Client(mode)
			res, err := client.Do(r)
			if err != nil {
				if want == 200 {
					t.Errorf("%d bytes: %v", size, err)
				}
				continue // net/http's client may notice the close first
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%d bytes: status %d, want %d", size, res.StatusCode, want)
			}
		}
	})
}

func TestTarget_ReachesTheUpstreamAsItWasWritten(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	for _, target := range []string{
		"/", "/a%2Fb|c", "/a/../b", "//double", "/%", "/a?x=%zz;y", "/?", "/a?b?c", "/%E2%82%AC", "/caf\xc3\xa9", "/a%2f%2F", "/;v=1", "/*", "/a\"b<c>",
	} {
		want := "GET " + target + " HTTP/1.1"
		answer := p.Raw(proxytest.Plain, "", "GET "+target+" HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		if target == "/%" { // no path at all: RFC 3986 §2.1
			if !strings.HasPrefix(answer, "HTTP/1.1 400") {
				t.Errorf("%q: %q", target, answer)
			}
			continue
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%q: %q", target, answer)
			continue
		}
		if line, _ := received(t, up.Next(t)); line != want {
			t.Errorf("upstream got %q, want %q", line, want)
		}
	}
	_ = p.Raw(proxytest.Plain, "", "GET http://a.test/abs?q HTTP/1.1\r\nHost: ignored.test\r\nConnection: close\r\n\r\n")
	if line, h := received(t, up.Next(t)); line != "GET /abs?q HTTP/1.1" || h.Get("Host") != "a.test" {
		t.Errorf("absolute-form: upstream got %q for %q", line, h.Get("Host"))
	}
	_ = p.Raw(proxytest.Plain, "", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	if line, _ := received(t, up.Next(t)); line != "OPTIONS * HTTP/1.1" {
		t.Errorf("asterisk-form: upstream got %q", line)
	}
}
