package upstream_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatelodge/proxy/upstream"
)

// targets are the targets that the pool has now.
func targets(p *upstream.Pool) (all []string) {
	for _, s := range p.Status() {
		all = append(all, s.Target)
	}
	return all
}

func mustBe(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func TestResolve_UsesNewAddressesAndLetsOldOnesDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		release := make(chan struct{})
		n.serve("app.test:3000", says("by name"))
		n.serve("10.0.0.1:3000", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-release
			_, _ = io.WriteString(w, "old")
		})
		n.serve("10.0.0.2:3000", says("two"))
		n.serve("10.0.0.3:3000", says("three"))
		n.resolve("app.test", "10.0.0.2", "10.0.0.1")
		p := n.pool(upstream.Config{To: []string{"http://app.test:3000"}, Balance: "first", ResolveEvery: 10 * time.Second})
		if _, body, err := send(p, "GET", ""); body != "by name" { // the first request does not wait for a look-up of ours
			t.Fatalf("%q, %v", body, err)
		}
		synctest.Wait()
		mustBe(t, "after the first look-up", targets(p), "http://10.0.0.1:3000", "http://10.0.0.2:3000")
		if n.open("app.test:3000") != 0 {
			t.Error("the connection by name is still open")
		}

		carried := begin(t.Context(), p)
		synctest.Wait()
		n.resolve("app.test", "10.0.0.3", "10.0.0.2")
		time.Sleep(9 * time.Second)
		_, _, _ = send(p, "HEAD", "")
		synctest.Wait()
		mustBe(t, "after 9 s", targets(p), "http://10.0.0.1:3000", "http://10.0.0.2:3000")
		time.Sleep(time.Second)
		go func() { _, _, _ = send(p, "HEAD", "") }()
		synctest.Wait()
		mustBe(t, "after 10 s", targets(p), "http://10.0.0.2:3000", "http://10.0.0.3:3000")
		close(release)
		if got := <-carried; got.body != "old" || got.err != nil {
			t.Errorf("the request that the old address carried: %+v", got)
		}
		synctest.Wait()
		if n.open("10.0.0.1:3000") != 0 {
			t.Error("a connection to the old address is still open")
		}

		n.resolve("app.test") // the name servers are away
		time.Sleep(time.Minute)
		if _, body, err := send(p, "GET", ""); body != "two" {
			t.Errorf("%q, %v", body, err)
		}
		synctest.Wait()
		mustBe(t, "without an answer", targets(p), "http://10.0.0.2:3000", "http://10.0.0.3:3000")
		asked := n.asked
		time.Sleep(time.Hour)
		if n.asked != asked {
			t.Errorf("%d look-ups for nobody", n.asked-asked)
		}
	})
}

func TestResolve_TakesOneAddressOfEachFamilyForOneHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("app.test:80", says("by name"))
		n.resolve("app.test", "::1", "127.0.0.1")
		p := n.pool(upstream.Config{To: []string{"http://app.test"}, ResolveEvery: 10 * time.Second})
		ask := func() {
			t.Helper()
			if _, body, err := send(p, "GET", ""); body != "by name" {
				t.Fatalf("%q, %v", body, err)
			}
			synctest.Wait()
			mustBe(t, "one host", targets(p), "http://app.test")
		}
		ask()
		time.Sleep(11 * time.Second)
		ask()
		if n.hosts["app.test:80"].opened != 1 {
			t.Error("the connection was given up though nothing changed")
		}
		n.resolve("app.test", "::1", "127.0.0.2")
		time.Sleep(11 * time.Second)
		ask()
		if n.open("app.test:80") != 0 {
			t.Error("a connection to the old address is still open")
		}
		ask()
		n.resolve("app.test", "2001:db8::1", "127.0.0.2", "127.0.0.3")
		time.Sleep(11 * time.Second)
		_, _, _ = send(p, "GET", "")
		synctest.Wait()
		mustBe(t, "two hosts", targets(p), "http://127.0.0.2:80", "http://127.0.0.3:80")
		n.resolve("app.test", "2001:db8::1", "2001:db8::2")
		time.Sleep(11 * time.Second)
		_, _, _ = send(p, "GET", "")
		synctest.Wait()
		mustBe(t, "two hosts of IPv6", targets(p), "http://[2001:db8::1]:80", "http://[2001:db8::2]:80")
	})
}

func TestResolve_KeepsWhatIsKnownOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.2:80", says("two"))
		n.serve("10.0.0.3:80", says("three"))
		n.resolve("app.test", "10.0.0.1", "10.0.0.2")
		p := n.pool(upstream.Config{
			To: []string{"http://app.test"}, Balance: "first", ResolveEvery: 10 * time.Second, Passive: upstream.Passive{Fails: 1, OutFor: time.Hour}, Retries: retries,
		})
		_, _, _ = send(p, "GET", "")
		synctest.Wait()
		if _, body, err := send(p, "GET", ""); body != "two" {
			t.Fatalf("%q, %v", body, err)
		}
		must(t, "before", p, "out", "up")
		n.resolve("app.test", "10.0.0.1", "10.0.0.2", "10.0.0.3")
		time.Sleep(10 * time.Second)
		_, _, _ = send(p, "GET", "")
		synctest.Wait()
		must(t, "after", p, "out", "up", "up")
		if n.hosts["10.0.0.2:80"].opened != 1 {
			t.Error("the connection was given up")
		}
	})
}

func TestPool_FinishesWhatItCarriesWhenItIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", slowly)
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1"}})
		under, way := begin(t.Context(), p), begin(t.Context(), p)
		synctest.Wait()
		_ = p.Close()
		for _, c := range []<-chan outcome{under, way, begin(t.Context(), p)} { // the last began before a reload, with the settings of that time
			if got := <-c; got.err != nil || got.body != "done" {
				t.Errorf("%+v", got)
			}
		}
		synctest.Wait()
		if n.open("10.0.0.1:80") != 0 {
			t.Error("connections are left over")
		}
	})
}
