package policy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"gatelodge/proxy/policy"
)

func newCompress(t testing.TB) *policy.Compress {
	t.Helper()
	c, err := policy.NewCompress(policy.CompressConfig{Codings: []string{"zstd", "br", "gzip"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// decoder reads what was compressed; for no coding it reads what there is.
func decoder(t testing.TB, coding string, r io.Reader) io.Reader {
	t.Helper()
	switch coding {
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(z.Close)
		return z
	case "br":
		return brotli.NewReader(r)
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	return r
}

var page = strings.Repeat("<p>All work and no play makes Jack a dull boy.</p>\n", 2000)

func TestCompress_TakesTheCodingThatTheClientLikesBest(t *testing.T) {
	s := serve(t, newCompress(t), func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Values("Accept-Encoding"); len(got) > 1 {
			t.Errorf("the request went on with Accept-Encoding %q", got)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		_, _ = io.WriteString(w, page)
	})
	for accept, want := range map[string]string{
		"":                                 "",
		"gzip":                             "gzip",
		"gzip, deflate, br":                "br",
		"gzip, deflate, br, zstd":          "zstd",
		"GZIP":                             "gzip",
		"x-gzip":                           "gzip",
		"gzip;q=1, zstd;q=0.9, br;q=0.9":   "gzip",
		"br;q=0.001":                       "br",
		"zstd;q=0, br;q=0.0, gzip;q=0.000": "",
		"*":                                "zstd",
		"*;q=0.1, zstd;q=0":                "br",
		"identity, *;q=0":                  "",
		"identity;q=0.5, gzip;q=0.2":       "",
		"identity;q=0.5, gzip;q=0.5":       "gzip",
		"deflate":                          "",
		"gzip;q=2":                         "",
		"gzip;q=0.0001":                    "",
		"gzip;level=9":                     "",
		", ,gzip ; q=0.5\t,":               "gzip",
	} {
		var fields []string
		if accept != "" {
			fields = []string{"Accept-Encoding", accept}
		}
		a := get(t, s, fields...)
		if got := a.Header.Get("Content-Encoding"); got != want {
			t.Errorf("%q was answered by %q, want %q", accept, got, want)
			continue
		}
		if b, err := io.ReadAll(decoder(t, want, strings.NewReader(a.body))); err != nil || string(b) != page {
			t.Errorf("%q: another page came out, %v", accept, err)
		}
		if want != "" && (len(a.body) > len(page)/20 || a.ContentLength > int64(len(a.body))) {
			t.Errorf("%q: %d bytes, Content-Length %d", accept, len(a.body), a.ContentLength)
		}
		if a.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: Vary %q", accept, a.Header.Get("Vary"))
		}
	}
}

func TestCompress_LeavesAloneWhatItMustNotTouch(t *testing.T) {
	for name, row := range map[string]struct {
		status  int
		header  string // "Name: value" by lines
		request []string
		want    bool
	}{
		"a page":                       {200, "Content-Type: text/html", nil, true},
		"JSON of a problem":            {404, "Content-Type: application/problem+json", nil, true},
		"SVG":                          {200, "Content-Type: image/svg+xml", nil, true},
		"upper case":                   {200, "Content-Type: TEXT/Plain ;charset=utf-8", nil, true},
		"called identity":              {200, "Content-Type: text/html\nContent-Encoding: identity", nil, true},
		"compressed already":           {200, "Content-Type: text/html\nContent-Encoding: gzip", nil, false},
		"a picture":                    {200, "Content-Type: image/jpeg", nil, false},
		"gRPC":                         {200, "Content-Type: application/grpc", nil, false},
		"no type":                      {200, "", nil, false},
		"short":                        {200, "Content-Type: text/html\nContent-Length: 1023", nil, false},
		"not short":                    {200, "Content-Type: text/html\nContent-Length: 1024", nil, true},
		"a part":                       {206, "Content-Type: text/html\nContent-Range: bytes 0-9/100", nil, false},
		"parts":                        {206, "Content-Type: text/html", nil, false},
		"no content":                   {204, "Content-Type: text/html", nil, false},
		"not modified":                 {304, "Content-Type: text/html", nil, false},
		"not to be changed":            {200, "Content-Type: text/html\nCache-Control: public, No-Transform", nil, false},
		"asked not to be changed":      {200, "Content-Type: text/html", []string{"Cache-Control", "no-transform"}, false},
		"with a digest of its content": {200, "Content-Type: text/html\nRepr-Digest: sha-256=:x:", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newCompress(t).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for line := range strings.SplitSeq(row.header, "\n") {
					if name, value, ok := strings.Cut(line, ": "); ok {
						w.Header().Set(name, value)
					}
				}
				w.WriteHeader(row.status)
			}))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Accept-Encoding", "gzip")
			for i := 0; i < len(row.request); i += 2 {
				r.Header.Set(row.request[i], row.request[i+1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := w.Header().Get("Content-Encoding") == "gzip" && w.Body.Len() > 0; got != row.want {
				t.Errorf("compressed: %t, want %t; %v", got, row.want, w.Header())
			}
			if !row.want && w.Header().Get("Vary") != "" {
				t.Errorf("Vary %q on what is never compressed", w.Header().Get("Vary"))
			}
		})
	}
}

func TestCompress_TellsCachesTheTruth(t *testing.T) {
	tag := `"v1"`
	s := serve(t, newCompress(t), func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Etag", tag)
		h.Set("Vary", "Cookie, accept-language")
		h.Set("Accept-Ranges", "bytes")
		if m := r.Header.Get("If-None-Match"); m != "" && strings.TrimPrefix(m, "W/") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "text/css")
		h.Set("Content-Length", strconv.Itoa(len(page)))
		w.WriteHeader(http.StatusOK)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, page)
		}
	})
	gzipped := send(t, s, http.MethodGet, "Accept-Encoding", "gzip")
	if got := gzipped.Header.Get("Etag"); got != `W/"v1"` {
		t.Errorf("the compressed answer has the validator %s", got)
	}
	if gzipped.Header.Get("Accept-Ranges") != "" || strings.Join(gzipped.Header.Values("Vary"), "|") != "Cookie, accept-language|Accept-Encoding" {
		t.Errorf("header %v", gzipped.Header)
	}
	head := send(t, s, http.MethodHead, "Accept-Encoding", "gzip")
	for _, name := range []string{"Etag", "Content-Encoding", "Vary", "Content-Type", "Accept-Ranges"} {
		if g, h := gzipped.Header.Values(name), head.Header.Values(name); strings.Join(g, "|") != strings.Join(h, "|") {
			t.Errorf("GET has %s: %q, HEAD %q", name, g, h)
		}
	}
	if head.ContentLength >= 0 {
		t.Errorf("HEAD says %d bytes, which is not what GET would send", head.ContentLength)
	}
	for sent, want := range map[string]string{`W/"v1"`: `W/"v1"`, `"v1"`: `"v1"`} {
		if a := send(t, s, http.MethodGet, "Accept-Encoding", "gzip", "If-None-Match", sent); a.StatusCode != 304 || a.Header.Get("Etag") != want || a.Header.Get("Content-Encoding") != "" {
			t.Errorf("If-None-Match %s: %s with %s and %v, want %s", sent, a.Status, a.Header.Get("Etag"), a.Header, want)
		}
	}
	if plain := send(t, s, http.MethodGet); plain.Header.Get("Etag") != tag || plain.Header.Get("Accept-Ranges") != "bytes" || plain.ContentLength != int64(len(page)) {
		t.Errorf("who takes no compression gets %v", plain.Header)
	}
}

// Each event must be readable when it was flushed, not when the encoder has enough of them.
func TestCompress_SendsEventsAtOnce(t *testing.T) {
	for _, coding := range []string{"zstd", "br", "gzip"} {
		t.Run(coding, func(t *testing.T) {
			seen := make(chan struct{})
			s := serve(t, newCompress(t), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for i := range 3 {
					_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
					if err := http.NewResponseController(w).Flush(); err != nil {
						t.Error(err)
					}
					select {
					case <-seen:
					case <-r.Context().Done():
						return
					}
				}
			})
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
			r.Header.Set("Accept-Encoding", coding)
			res, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			if res.Header.Get("Content-Encoding") != coding {
				t.Fatalf("header %v", res.Header)
			}
			lines := bufio.NewScanner(decoder(t, coding, res.Body))
			for i := range 3 {
				for lines.Scan() && lines.Text() == "" {
				}
				if want := fmt.Sprintf("data: %d", i); lines.Text() != want {
					t.Fatalf("event %d is %q: %v", i, lines.Text(), lines.Err())
				}
				seen <- struct{}{}
			}
		})
	}
}

func TestCompress_DoesNotCompleteWhatBrokeOff(t *testing.T) {
	s := serve(t, newCompress(t), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, page)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	r.Header.Set("Accept-Encoding", "gzip")
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadAll(decoder(t, "gzip", res.Body)); err == nil {
		t.Error("the client takes the answer for complete")
	}
}

func TestCompress_PassesTrailersAndInformationalAnswers(t *testing.T) {
	s := serve(t, newCompress(t), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, page)
		w.Header().Set("X-Sum", "42")
	})
	a := get(t, s, "Accept-Encoding", "br")
	if a.StatusCode != 200 || a.Header.Get("Content-Encoding") != "br" || a.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%s %v, trailers %v", a.Status, a.Header, a.Trailer)
	}
}

func TestCompress_RefusesOtherCodings(t *testing.T) {
	for _, codings := range [][]string{nil, {"deflate"}, {"gzip", "compress"}} {
		if _, err := policy.NewCompress(policy.CompressConfig{Codings: codings}); err == nil {
			t.Errorf("%q: no error", codings)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	for _, coding := range []string{"none", "zstd", "br", "gzip"} {
		for _, size := range []int{4 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", coding, size>>10), func(b *testing.B) {
				body := []byte(page[:min(size, len(page))])
				h := newCompress(b).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Type"] = []string{"text/html"}
					_, _ = w.Write(body)
				}))
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("Accept-Encoding", coding)
				w := &sink{header: http.Header{}}
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					clear(w.header)
					h.ServeHTTP(w, r)
				}
			})
		}
	}
}

type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}
