package policy_test

import (
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"gatelodge/proxy/policy"
)

// cheap is a hash that is quick to check, for tests that are about something else.
func cheap(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// The reference vector of the argon2 command: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32.
const argonPassword = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"

func TestBasic_LetsThroughWhoIsKnownAndNobodyElse(t *testing.T) {
	b, err := policy.NewBasic(policy.BasicConfig{Realm: "Staff", Users: []string{
		"alice:" + cheap(t, "wonder:land"), "bob:" + argonPassword, "carol:" + policy.HashPassword(""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Value
	s := serve(t, b, func(_ http.ResponseWriter, r *http.Request) { seen.Store(r.Header.Get("Authorization")) })
	for name, row := range map[string]struct {
		user, password string
		want           int
	}{
		"bcrypt, with a colon in the password":          {"alice", "wonder:land", 200},
		"argon2id":                                      {"bob", "password", 200},
		"an empty password where that is the password":  {"carol", "", 200},
		"a wrong password":                              {"alice", "wonderland", 401},
		"an empty one":                                  {"alice", "", 401},
		"the password of another":                       {"alice", "password", 401},
		"an unknown user with the password of a known":  {"mallory", "password", 401},
		"an unknown user with the other known password": {"mallory", "wonder:land", 401},
		"no user":                      {"", "", 401},
		"another spelling of the user": {"Alice", "wonder:land", 401},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second time from memory, if at all
				seen.Store("nothing came")
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
				r.SetBasicAuth(row.user, row.password)
				res, err := s.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != row.want {
					t.Errorf("%s, want %d", res.Status, row.want)
				}
				if row.want == 401 && res.Header.Get("Www-Authenticate") != `Basic realm="Staff", charset="UTF-8"` {
					t.Errorf("challenge %q", res.Header.Get("Www-Authenticate"))
				}
				if got := seen.Load(); row.want == 200 && got != "" || row.want == 401 && got != "nothing came" {
					t.Errorf("behind the policy arrived %q", got)
				}
			}
		})
	}
}

func TestBasic_RefusesFieldsThatAreNoCredentials(t *testing.T) {
	b, err := policy.NewBasic(policy.BasicConfig{Users: []string{"alice:" + cheap(t, "secret")}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, b, ok)
	const right = "Basic YWxpY2U6c2VjcmV0"
	for name, row := range map[string]struct {
		fields []string
		want   int
	}{
		"right":               {[]string{"Authorization", right}, 200},
		"right, scheme lower": {[]string{"Authorization", "basic YWxpY2U6c2VjcmV0"}, 200},
		"none":                {nil, 401},
		"twice":               {[]string{"Authorization", right, "Authorization", "Basic eDp5"}, 401},
		"a token":             {[]string{"Authorization", "Bearer YWxpY2U6c2VjcmV0"}, 401},
		"no base64":           {[]string{"Authorization", "Basic alice:secret"}, 401},
		"no colon":            {[]string{"Authorization", "Basic YWxpY2U="}, 401},
		"for another proxy":   {[]string{"Proxy-Authorization", right}, 401},
	} {
		if a := get(t, s, row.fields...); a.StatusCode != row.want {
			t.Errorf("%s: %s, want %d", name, a.Status, row.want)
		}
	}
}

func TestBasic_KeepsTheCredentialsIfAsked(t *testing.T) {
	b, err := policy.NewBasic(policy.BasicConfig{Users: []string{"alice:" + cheap(t, "secret")}, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, b, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Authorization"))) })
	if a := get(t, s, "Authorization", "Basic YWxpY2U6c2VjcmV0"); a.body != "Basic YWxpY2U6c2VjcmV0" {
		t.Errorf("behind the policy arrived %q", a.body)
	}
}

// A page with its pictures comes as a hundred requests at once; argon2id for each would take seconds and gigabytes.
func TestBasic_ChecksAPasswordOnceForManyRequests(t *testing.T) {
	b, err := policy.NewBasic(policy.BasicConfig{Users: []string{"bob:" + argonPassword}, Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, b, ok)
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	before := allocated()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if a := get(t, s, "Authorization", "Basic Ym9iOnBhc3N3b3Jk"); a.StatusCode != 200 {
				t.Error(a.Status)
			}
		})
	}
	all.Wait()
	if spent := allocated() - before; spent > 120<<20 {
		t.Errorf("a hundred requests allocated %d MiB; one check takes 64", spent>>20)
	}
}

func TestBasic_RefusesUsersThatAreNone(t *testing.T) {
	for name, list := range map[string][]string{
		"none":               nil,
		"no hash":            {"alice"},
		"no name":            {":" + cheap(t, "x")},
		"a plain password":   {"alice:secret"},
		"crypt":              {"alice:rl.3StKT.4T8M"},
		"apr1":               {"alice:$apr1$abcdefgh$abcdefghijklmnopqrstuv"},
		"sha1":               {"alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="},
		"argon2i":            {"alice:" + strings.Replace(argonPassword, "argon2id", "argon2i", 1)},
		"argon2id of 4 TiB":  {"alice:" + strings.Replace(argonPassword, "m=65536", "m=4294967295", 1)},
		"argon2id, no lanes": {"alice:" + strings.Replace(argonPassword, "p=1", "p=0", 1)},
		"argon2id, cut":      {"alice:" + argonPassword[:60]},
		"twice":              {"alice:" + cheap(t, "a"), "alice:" + cheap(t, "b")},
	} {
		_, err := policy.NewBasic(policy.BasicConfig{Users: list})
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
	if _, err := policy.NewBasic(policy.BasicConfig{Users: []string{"alice:" + cheap(t, "a")}, Realm: `a"b`}); err == nil {
		t.Error("a quotation mark in the realm: no error")
	}
}

func TestParseUsers_ReadsWhatHtpasswdWrites(t *testing.T) {
	list, err := policy.ParseUsers("users", []byte("# staff\n\nalice:"+cheap(t, "a")+"\r\n  bob:"+argonPassword+"\n"))
	if err != nil || len(list) != 2 || !strings.HasPrefix(list[1], "bob:$argon2id$") {
		t.Errorf("%q, %v", list, err)
	}
	if _, err := policy.ParseUsers("users", []byte("alice:"+cheap(t, "a")+"\nbob:hunter2\n")); err == nil || !strings.Contains(err.Error(), "users:2: ") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a plain password: %v", err)
	}
	alice := "alice:" + cheap(t, "a") + "\n"
	_, err = policy.ParseUsers("users", []byte("bob\n"+alice+"\n"+alice))
	if err == nil || err.Error() != "users:1: a user is written NAME:HASH\nusers:4: the user \"alice\" is in line 2 already" {
		t.Errorf("two faults: %v", err)
	}
}

// Whatever stands in a file of users, its fault does not show it, and what is taken can be asked for.
func FuzzParseUsers(f *testing.F) {
	for _, s := range []string{"", "# x\n\n", "alice:" + argonPassword, "alice:hunter2hunter2", "a:$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", ":x", "a:$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		list, err := policy.ParseUsers("users", []byte(file))
		if err != nil {
			for _, line := range strings.Fields(file) {
				if _, hash, ok := strings.Cut(line, ":"); ok && len(hash) > 15 && strings.Contains(err.Error(), hash) {
					t.Errorf("%q: %v", file, err)
				}
			}
			return
		}
		if _, err := policy.NewBasic(policy.BasicConfig{Users: list}); err != nil && len(list) > 0 && !strings.Contains(err.Error(), "twice") {
			t.Errorf("%q was taken, and then not: %v", list, err)
		}
	})
}

func BenchmarkBasic_Remembered(b *testing.B) {
	p, err := policy.NewBasic(policy.BasicConfig{Users: []string{"alice:" + cheap(b, "secret")}, Keep: true})
	if err != nil {
		b.Fatal(err)
	}
	h := p.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://x/", nil)
	r.SetBasicAuth("alice", "secret")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(nil, r)
	}
}

func BenchmarkBasic_Argon2id(b *testing.B) {
	p, err := policy.NewBasic(policy.BasicConfig{Users: []string{"alice:" + policy.HashPassword("secret")}})
	if err != nil {
		b.Fatal(err)
	}
	h := p.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://x/", nil)
	r.SetBasicAuth("alice", "wrong")
	w := discard{}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// discard is a client that looks at nothing.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
