package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// start runs a proxy with the one site a.test before h.
func start(t *testing.T, h http.HandlerFunc) *proxytest.Proxy {
	t.Helper()
	return proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, h), "a.test")), nil)
}

// startRaw runs a proxy with the one site a.test before a raw upstream.
func startRaw(t *testing.T, answer func(net.Conn, string, *bufio.Reader)) (*proxytest.Proxy, *proxytest.RawUpstream) {
	t.Helper()
	up := proxytest.NewRawUpstream(t, answer)
	return proxytest.Start(t, proxytest.Sites(proxytest.Site(t, up.URL, "a.test")), nil), up
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestForward_SendsEachEventAsSoonAsItIsThere(t *testing.T) {
	next := make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			<-next // the upstream goes on only when the client has the event
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := p.Client(mode).Get(mode.URL("a.test", "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		buf := make([]byte, 9)
		for range 3 {
			if _, err := io.ReadFull(res.Body, buf); err != nil {
				t.Fatal(err)
			}
			next <- struct{}{}
		}
	})
}

func TestForward_SendsTheHeaderBeforeTheBodyExists(t *testing.T) {
	for _, length := range []string{"", "5"} {
		release := make(chan struct{})
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-release
			_, _ = io.WriteString(w, "later")
		})
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			res, err := p.Client(mode).Get(mode.URL("a.test", "/")) // returns with the header
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			release <- struct{}{}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "later" {
				t.Errorf("body = %q, %v", body, err)
			}
		})
	}
}

func TestForward_CarriesAConversationBothWaysAtOnce(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = rc.Flush()
		buf := make([]byte, 1)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				return
			}
			_, _ = w.Write(buf)
			_ = rc.Flush()
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		pr, pw := io.Pipe()
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), pr)
		res, err := p.Client(mode).Do(r) // the answer begins before a byte of the body was sent
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for i := range 10 {
			c := []byte{'a' + byte(i)}
			if _, err := pw.Write(c); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1)
			if _, err := io.ReadFull(res.Body, got); err != nil || got[0] != c[0] {
				t.Fatalf("echo %q, %v", got, err)
			}
		}
		_ = pw.Close()
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
			t.Errorf("end = %q, %v", rest, err)
		}
	})
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestForward_StreamsBigBodiesInFlatMemory(t *testing.T) {
	size := int64(64 << 20)
	if testing.Short() { // with the race detector, HTTP/3 takes minutes for more
		size = 16 << 20
	}
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n, err)
			return
		}
		_, _ = io.CopyN(w, zeros{}, size)
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		_, _ = proxytest.Get(t, client, mode.URL("a.test", "/")) // warm
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)

		res, err := client.Get(mode.URL("a.test", "/"))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("down: %d bytes, %v", n, err)
		}
		_ = res.Body.Close()
		for _, length := range []int64{size, -1} {
			r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), io.LimitReader(zeros{}, size))
			r.ContentLength = length
			if _, body := proxytest.Do(t, client, r); body != fmt.Sprint(size, nil) {
				t.Errorf("up, length %d: %s", length, body)
			}
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 24<<20 {
			t.Errorf("heap grew by %d MiB while %d MiB passed", grown>>20, 3*size>>20)
		}
	})
}

func TestForward_PassesTrailersBothWays(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "Announced, Authorization, Forbidden")
		_, _ = io.WriteString(w, "x")
		w.Header().Set("Announced", "sum="+r.Trailer.Get("Sum"))
		w.Header().Set("Authorization", "upstream")
		w.Header().Set("Forbidden", "none"+r.Trailer.Get("X-Forwarded-For")+r.Trailer.Get("Authorization"))
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), io.LimitReader(zeros{}, 10))
		r.Trailer = http.Header{"Sum": {"42"}, "X-Forwarded-For": {"1.1.1.1"}}
		if !mode.H2 { // net/http refuses it over h2
			r.Trailer.Set("Authorization", "x")
		}
		r.Header.Set("TE", "trailers")
		res, _ := proxytest.Do(t, p.Client(mode), r)
		if got := res.Trailer.Get("Announced"); got != "sum=42" {
			t.Errorf("announced trailer = %q", got)
		}
		if down, up := res.Trailer.Get("Authorization"), res.Trailer.Get("Forbidden"); down != "" || up != "none" {
			t.Errorf("trailers that must not trail came through: %q, %q", down, up)
		}
	})
}

func TestForward_PassesUnannouncedTrailersOn(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nSudden: yes\r\n\r\n"))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, _ := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
		if got := res.Trailer.Get("Sudden"); got != "yes" {
			t.Errorf("trailer = %q in %v", got, res.Trailer)
		}
	})
}

// informed collects the 1xx answers that a client gets.
func informed(r *http.Request) (*http.Request, func() []string) {
	var mu sync.Mutex
	var got []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
		return nil
	}}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace)), func() []string { mu.Lock(); defer mu.Unlock(); return got }
}

func TestForward_PassesEarlyHintsOn(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Link", "</b.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "done")
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
		r, got := informed(r)
		res, body := proxytest.Do(t, p.Client(mode), r)
		if want := "[103 </a.css> 103 </b.css>]"; fmt.Sprint(got()) != want || body != "done" || res.Header.Get("Link") != "" {
			t.Errorf("informational = %v, body %q, Link %q", got(), body, res.Header.Get("Link"))
		}
	})
}

func TestForward_EndsAFloodOfInformationalAnswers(t *testing.T) {
	p, _ := startRaw(t, func(c net.Conn, _ string, _ *bufio.Reader) {
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); err != nil {
				return
			}
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
		r, got := informed(r)
		res, _ := proxytest.Do(t, p.Client(mode), r)
		if res.StatusCode != http.StatusBadGateway || len(got()) != 16 {
			t.Errorf("status %d after %d informational answers", res.StatusCode, len(got()))
		}
	}, proxytest.H1, proxytest.H2, proxytest.Plain) // quic-go's client takes no more than five
}

func TestForward_LetsTheUpstreamDecideAbout100Continue(t *testing.T) {
	t.Run("it wants the body", func(t *testing.T) {
		asked := make(chan struct{})
		p, _ := startRaw(t, func(c net.Conn, _ string, r *bufio.Reader) {
			<-asked
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			_, _ = io.ReadFull(r, make([]byte, 4))
			_, _ = io.WriteString(c, proxytest.OK)
		})
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			c := p.Dial(mode, "a.test")
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			_ = c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
			if n, err := c.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
				t.Errorf("the proxy answered before the upstream did: %d, %v", n, err)
			}
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			asked <- struct{}{}
			br := bufio.NewReader(c)
			if line, _ := br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("got %q", line)
			}
			_, _ = io.WriteString(c, "body")
			_, _ = br.ReadString('\n')
			if line, _ := br.ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
				t.Errorf("got %q", line)
			}
		}, proxytest.H1, proxytest.Plain)
	})
	t.Run("it refuses", func(t *testing.T) {
		p := start(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			r, _ := http.NewRequest(http.MethodPut, mode.URL("a.test", "/"), strings.NewReader("body"))
			r.Header.Set("Expect", "100-continue")
			r, got := informed(r)
			client := p.Client(mode)
			client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
			if res, _ := proxytest.Do(t, client, r); res.StatusCode != http.StatusUnauthorized || len(got()) != 0 {
				t.Errorf("status %d, informational %v", res.StatusCode, got())
			}
		}, proxytest.H1, proxytest.Plain)
	})
	t.Run("it says nothing, and the client begins by itself", func(t *testing.T) {
		p, _ := startRaw(t, func(c net.Conn, _ string, r *bufio.Reader) {
			_, _ = io.ReadFull(r, make([]byte, 4))
			_, _ = io.WriteString(c, proxytest.OK)
		})
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			answer := p.Raw(mode, "a.test", "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
			if !strings.HasPrefix(answer, "HTTP/1.1 200 OK\r\n") {
				t.Errorf("answer = %q", answer)
			}
		}, proxytest.H1, proxytest.Plain)
	})
	t.Run("HTTP/1.0 knows no 100", func(t *testing.T) { // RFC 9110 §15.2: a server MUST NOT send one to its clients
		p, up := startRaw(t, func(c net.Conn, _ string, r *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			_, _ = io.ReadFull(r, make([]byte, 4))
			_, _ = io.WriteString(c, proxytest.OK)
		})
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			answer := p.Raw(mode, "a.test", "POST / HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
			if !strings.HasPrefix(answer, "HTTP/1.1 200 OK\r\n") && !strings.HasPrefix(answer, "HTTP/1.0 200 OK\r\n") {
				t.Errorf("answer = %q", answer)
			}
			if _, got := received(t, up.Next(t)); got["Expect"] != nil {
				t.Errorf("the upstream got %v", got)
			}
		}, proxytest.H1, proxytest.Plain)
	})
	t.Run("over h2, where net/http hides the expectation, the body passes", func(t *testing.T) {
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		})
		r, _ := http.NewRequest(http.MethodPut, "https://a.test/", strings.NewReader("body"))
		r.Header.Set("Expect", "100-continue")
		r, got := informed(r)
		client := p.Client(proxytest.H2)
		client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
		if _, body := proxytest.Do(t, client, r); body != "body" || len(got()) != 1 {
			t.Errorf("body %q, informational %v", body, got())
		}
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestForward_CancelsTheUpstreamWhenTheClientLeaves(t *testing.T) {
	arrived, canceled := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		canceled <- struct{}{}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		failed := p.Metrics.UpstreamErrors("")
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, mode.URL("a.test", "/"), nil)
		go func() { <-arrived; cancel() }()
		if _, err := p.Client(mode).Do(r); err == nil {
			t.Error("the client got an answer")
		}
		select {
		case <-canceled:
		case <-time.After(5 * time.Second):
			t.Fatal("the upstream was not canceled")
		}
		if p.Metrics.UpstreamErrors("") != failed {
			t.Error("the client's leaving was counted against the upstream")
		}
	})
	eventually(t, "the requests are recorded as left by the client", func() bool { return p.Metrics.Requests(499) == len(proxytest.Modes) })
}

func TestForward_CancelsTheUpstreamWhenTheClientResets(t *testing.T) {
	arrived, canceled := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(canceled)
	})
	c := p.Dial(proxytest.Plain, "")
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-arrived
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	<-canceled
}

func TestForward_AnswersAClientThatClosedItsSide(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(200 * time.Millisecond)
		for range 8 { // longer in all than the proxy waits for a client that takes nothing
			_, _ = io.WriteString(w, "part ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(200 * time.Millisecond)
		}
		_, _ = io.WriteString(w, "end")
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		t.Parallel()
		c := p.Dial(mode, "a.test")
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		if !strings.HasSuffix(string(answer), strings.Repeat("part ", 8)+"end") {
			t.Errorf("answer = %q", answer)
		}
	}, proxytest.H1, proxytest.Plain)
}

func TestForward_MakesACutAnswerVisible(t *testing.T) {
	for name, answer := range map[string]string{
		"short body":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
		"short chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
		"bad chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nxyz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := startRaw(t, proxytest.Reply(answer))
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				res, err := p.Client(mode).Get(mode.URL("a.test", "/"))
				if err != nil {
					return // cut before the header: visible too
				}
				defer res.Body.Close()
				if body, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("the client took %q for the whole answer", body)
				}
			})
			if p.Metrics.UpstreamErrors("") != len(proxytest.Modes) {
				t.Errorf("upstream errors = %d, want one per request", p.Metrics.UpstreamErrors(""))
			}
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) { // chunks have no place there, so that only the connection can say it
				c := p.Dial(mode, "a.test")
				_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
				if answer, err := io.ReadAll(c); err == nil {
					t.Errorf("over HTTP/1.0 the client took %q for the whole answer", answer)
				}
			}, proxytest.H1, proxytest.Plain)
		})
	}
}

func TestForward_AnswersForBrokenUpstreamsWithoutDetail(t *testing.T) {
	closed := proxytest.Listen(t)
	_ = closed.Close()
	for _, c := range []struct {
		name, answer, class string
		status              int
	}{
		{"nobody listens", "", "connect", 502},
		{"closes without an answer", " ", "aborted", 502},
		{"never answers", "wait", "timeout", 504},
		{"is no HTTP", "220 smtp ready\r\n\r\n", "protocol", 502},
		{"says HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol", 502},
		{"switches protocols unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "protocol", 502},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "protocol", 502},
		{"status out of range", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", "protocol", 502},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10) + "\r\n\r\n", "protocol", 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := "http://" + closed.Addr().String()
			if c.answer != "" {
				up := proxytest.NewRawUpstream(t, func(conn net.Conn, _ string, r *bufio.Reader) {
					if c.answer == "wait" {
						_, _ = r.ReadByte()
						return
					}
					_, _ = io.WriteString(conn, strings.TrimSpace(c.answer))
					if strings.HasSuffix(c.answer, "\r\n") {
						_, _ = io.WriteString(conn, "\r\n\r\n")
					}
				})
				to = up.URL
			}
			patience := 30 * time.Second
			if c.answer == "wait" {
				patience = 200 * time.Millisecond
			}
			pool, err := upstream.New(upstream.Config{To: []string{to}, ResponseHeaderTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			p := proxytest.Start(t, proxytest.Sites(proxy.Site{Name: "a", Hosts: []string{"a.test"}, Upstream: pool, AccessLog: true}), nil)
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
				if res.StatusCode != c.status {
					t.Errorf("status = %d, want %d", res.StatusCode, c.status)
				}
				id := res.Header.Get("X-Request-Id")
				if id == "" || !strings.Contains(body, id) || strings.Contains(body, "127.0.0.1") {
					t.Errorf("body = %q, request id %q", body, id)
				}
				logged := p.Log.FilterMessage("upstream failed").All()
				if len(logged) == 0 || logged[len(logged)-1].ContextMap()["request_id"] != id {
					t.Error("the log does not tell what happened to this request id")
				}
			})
			if n := p.Metrics.UpstreamErrors(c.class); n != len(proxytest.Modes) {
				t.Errorf("%d errors of class %s, want one per request", n, c.class)
			}
		})
	}
}

func TestForward_NeverSendsAPostTwice(t *testing.T) {
	// The upstream answers the first request of each connection and closes at the second, after it has read it.
	var mu sync.Mutex
	var posts int
	l := proxytest.Listen(t)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for first := true; ; first = false {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					if r.Method == http.MethodPost {
						mu.Lock()
						posts++
						mu.Unlock()
					}
					if !first {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://"+l.Addr().String(), "a.test")), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, body := range []string{"", "body"} {
			mu.Lock()
			posts = 0
			mu.Unlock()
			client := p.Client(mode)
			_, _ = proxytest.Get(t, client, mode.URL("a.test", "/")) // leaves a connection to be reused
			r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), strings.NewReader(body))
			r.Header.Set("Idempotency-Key", "k")
			res, _ := proxytest.Do(t, client, r)
			mu.Lock()
			if posts != 1 || res.StatusCode != http.StatusBadGateway {
				t.Errorf("body %q: the upstream got %d POSTs, the client %d", body, posts, res.StatusCode)
			}
			mu.Unlock()
		}
	})
}

func TestForward_PassesAnAnswerOnThatComesBeforeTheBodyIsSent(t *testing.T) {
	p, _ := startRaw(t, func(c net.Conn, _ string, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
		_, _ = io.Copy(io.Discard, r)
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		pr, pw := io.Pipe()
		go func() { _, _ = pw.Write(make([]byte, 1000)) }() // and then nothing: the body never ends
		defer pw.Close()
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), pr)
		res, body := proxytest.Do(t, p.Client(mode), r)
		if res.StatusCode != http.StatusRequestEntityTooLarge || body != "no!" {
			t.Errorf("answer = %d %q", res.StatusCode, body)
		}
	})
}

func TestForward_RefusesBodiesBeyondTheLimit(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})
	site := proxytest.Site(t, to, "a.test")
	site.BodyBytes = 1000
	p := proxytest.Start(t, proxytest.Sites(site), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, c := range []struct {
			size, length int64
			want         int
		}{{1000, 1000, 200}, {1001, 1001, 413}, {1000, -1, 200}, {1001, -1, 413}, {1 << 20, -1, 413}} {
			r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), io.LimitReader(zeros{}, c.size))
			r.ContentLength = c.length
			if res, _ := proxytest.Do(t, p.Client(mode), r); res.StatusCode != c.want {
				t.Errorf("%d bytes, announced %d: status %d, want %d", c.size, c.length, res.StatusCode, c.want)
			}
		}
	})
	if p.Metrics.UpstreamErrors("") != 0 {
		t.Error("the client's body was counted against the upstream")
	}
}

func TestForward_InventsNeitherContentTypeNorLength(t *testing.T) {
	up := proxytest.NewRawUpstream(t, proxytest.Reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nAlt-Svc: h3=\":443\"\r\n\r\n6\r\n<html>\r\n0\r\n\r\n"))
	p := proxytest.StartWith(t, proxytest.Sites(proxytest.Site(t, up.URL, "a.test")), func(_ *proxy.Config, s *proxy.Settings) { s.HTTP3 = false })
	answer := p.Raw(proxytest.H1, "a.test", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	for _, invented := range []string{"Content-Type", "Content-Length", "Alt-Svc", "Server", "Via"} {
		if strings.Contains(answer, invented) {
			t.Errorf("%s in %q", invented, answer)
		}
	}
	if !strings.Contains(answer, "<html>") {
		t.Errorf("answer = %q", answer)
	}
}

func TestForward_InventsNoLengthForHead(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodHead, mode.URL("a.test", "/"), nil)
		res, _ := proxytest.Do(t, p.Client(mode), r)
		if v, ok := res.Header["Content-Length"]; ok {
			t.Errorf("Content-Length %q", v)
		}
	})
}

func TestForward_KeepsHeadAndEmptyAnswersAsTheyAre(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Length", "1234")
			w.WriteHeader(http.StatusOK)
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		if res, err := client.Head(mode.URL("a.test", "/")); err != nil || res.ContentLength != 1234 || res.Body.Close() != nil {
			t.Errorf("HEAD: %v, %v", res, err)
		}
		for path, want := range map[string]int{"/204": 204, "/304": 304} {
			if res, body := proxytest.Get(t, client, mode.URL("a.test", path)); res.StatusCode != want || body != "" {
				t.Errorf("%s: %d %q", path, res.StatusCode, body)
			}
		}
	})
}
