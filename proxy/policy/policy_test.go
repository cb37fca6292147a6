package policy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"gatelodge/proxy/policy"
)

func TestMain(m *testing.M) {
	// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// clientField tells the policies under test who asks, in place of a proxy.
const clientField = "Test-Client"

func clientOf(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddr(r.Header.Get(clientField))
	return a
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// wrapper is what all policies have in common.
type wrapper interface {
	Wrap(next http.Handler) http.Handler
}

var (
	_ wrapper = (*policy.Limit)(nil)
	_ wrapper = (*policy.Networks)(nil)
	_ wrapper = (*policy.Basic)(nil)
	_ wrapper = (*policy.Forward)(nil)
	_ wrapper = (*policy.Compress)(nil)
)

// serve starts a server with the handler behind the policy.
func serve(t testing.TB, p wrapper, next http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(p.Wrap(next))
	t.Cleanup(s.Close)
	s.Client().Transport.(*http.Transport).DisableCompression = true
	return s
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

type answer struct {
	*http.Response
	body string
}

// get asks with the fields, which are name, value, name, value.
func get(t testing.TB, s *httptest.Server, fields ...string) answer {
	t.Helper()
	return send(t, s, http.MethodGet, fields...)
}

func send(t testing.TB, s *httptest.Server, method string, fields ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/path?query", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	res, err := s.Client().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(body)}
}
