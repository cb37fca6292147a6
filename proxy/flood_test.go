package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// flooder is a client of HTTP/2 that sends what it likes. Its writes fail when the server has had enough.
type flooder struct {
	*http2.Framer
	header, post []byte // of a GET and of a POST
	stream       uint32
}

func newFlooder(c net.Conn) (*flooder, error) {
	f := &flooder{Framer: http2.NewFramer(c, c), stream: 1}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	for method, block := range map[string]*[]byte{"GET": &f.header, "POST": &f.post} {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		for _, h := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "a.test"}, {":path", "/"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		*block = b.Bytes()
	}
	return f, f.WriteSettings()
}

func (f *flooder) open(block []byte, endStream, endHeaders bool) (uint32, error) {
	id := f.stream
	f.stream += 2
	return id, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: endStream, EndHeaders: endHeaders})
}

// floods are what clients have brought servers down with; each is repeated until the server ends the connection, or often.
var floods = map[string]func(f *flooder, i int) error{
	"rapid resets (CVE-2023-44487)": func(f *flooder, _ int) error {
		id, err := f.open(f.header, true, true)
		if err == nil {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		return err
	},
	"streams that the server must reset (CVE-2025-8671)": func(f *flooder, _ int) error {
		id, err := f.open(f.post, false, true)
		if err == nil {
			err = f.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0})
		}
		return err
	},
	"headers without an end (CVE-2023-45288)": func(f *flooder, i int) error {
		if i == 0 {
			_, err := f.open(f.header, true, false)
			return err
		}
		return f.WriteContinuation(1, false, bytes.Repeat([]byte{0x40, 1, 'a', 1, 'b'}, 1000))
	},
	"PING":     func(f *flooder, _ int) error { return f.WritePing(false, [8]byte{}) },
	"SETTINGS": func(f *flooder, _ int) error { return f.WriteSettings() },
	"PRIORITY": func(f *flooder, i int) error {
		return f.WritePriority(uint32(i%100)*2+1, http2.PriorityParam{Weight: 1})
	},
	"empty DATA": func(f *flooder, i int) error {
		if i == 0 {
			_, err := f.open(f.post, false, true)
			return err
		}
		return f.WriteData(1, false, nil)
	},
	"windows that open by one byte": func(f *flooder, _ int) error { return f.WriteWindowUpdate(0, 1) },
	"unknown frames":                func(f *flooder, i int) error { return f.WriteRawFrame(http2.FrameType(10+i%246), 0, 0, []byte("x")) },
}

func TestFlood_LeavesTheServerAsItWas(t *testing.T) {
	site := proxytest.Site(t, "http://127.0.0.1:1", "a.test")
	pool, err := upstream.New(upstream.Config{IdleTimeout: 100 * time.Millisecond, To: []string{ // what floods open behind us goes soon
		proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "hello")
		})}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	site.Upstream = pool
	p := proxytest.StartWith(t, proxytest.Sites(site), nil)
	frames := 5000
	if testing.Short() {
		frames = 1000
	}
	works := func() {
		t.Helper()
		c := p.Client(proxytest.H2)
		defer c.CloseIdleConnections()
		if res, err := c.Get(proxytest.H2.URL("a.test", "/")); err != nil || res.StatusCode != 200 {
			t.Errorf("others are not served: %v", err)
		} else {
			_ = res.Body.Close()
		}
	}
	works()
	eventually(t, "nobody is connected", func() bool { return p.Metrics.Open() == 0 })
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			for range 4 {
				c := dialH2(t, p)
				all.Go(func() { _, _ = io.Copy(io.Discard, c) }) // answers are read, so that it is not TCP which stops the flood
				all.Go(func() {
					defer c.Close()
					_ = c.SetWriteDeadline(time.Now().Add(30 * time.Second))
					f, err := newFlooder(c)
					for i := 0; err == nil && i < frames; i++ {
						err = flood(f, i)
					}
				})
			}
			all.Wait()
			works()
		})
	}
	var idle []net.Conn
	for range 200 {
		idle = append(idle, dialH2(t, p))
	}
	works()
	for _, c := range idle {
		_ = c.Close()
	}
	back := func() bool {
		return p.Metrics.Open() == 0 && runtime.NumGoroutine() <= goroutines+8 && openFiles(t) <= descriptors+8
	}
	for end := time.Now().Add(time.Minute); !back(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections, %d goroutines where there were %d, %d descriptors where there were %d",
				p.Metrics.Open(), runtime.NumGoroutine(), goroutines, openFiles(t), descriptors)
		}
	}
}

func dialH2(t *testing.T, p *proxytest.Proxy) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// openFiles counts the process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
