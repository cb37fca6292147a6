package upstream

import (
	"net/http"
	"net/netip"
	"testing"
)

// Choosing is on the way of every request, and costs it nothing that somebody has to collect.
func TestPick_AllocatesNothing(t *testing.T) {
	for _, balance := range []string{"p2c", "round_robin", "least_conn", "first", "hash:ip", "hash:header:X-User", "hash:cookie:sid"} {
		p, err := New(Config{To: []string{"http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"}, Balance: balance, Sticky: "lb"})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.Header = http.Header{"X-User": {"u"}, "Cookie": {"a=b; sid=1; lb=bad"}}
		j := &journey{r: r, call: &Call{Client: netip.MustParseAddr("192.0.2.1")}}
		if n := testing.AllocsPerRun(200, func() { _, _ = p.pick(j) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", balance, n)
		}
	}
}

func TestNext_AllocatesNothingAfterAnAnswer(t *testing.T) {
	p, err := New(Config{To: []string{"http://10.0.0.1"}, Retries: Retries{Max: 1, On: []string{"connect", "502", "503"}, Methods: []string{"GET"}, Budget: 10}})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	j, res := &journey{r: r}, &http.Response{StatusCode: http.StatusOK}
	if n := testing.AllocsPerRun(200, func() {
		p.budget.deposit(10)
		if p.next(j, nil, res, nil) != nil {
			t.Fatal("a good answer is sent for again")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestFraming_AllocatesNothing(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: Sat, 21 Nov 2026 23:00:00 GMT\r\n\r\nhello")
	var f framing
	if n := testing.AllocsPerRun(200, func() {
		f.begin(false)
		if n, err := f.take(answer); n != len(answer) || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkFraming(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 1024\r\nDate: Sat, 21 Nov 2026 23:00:00 GMT\r\nServer: x\r\nCache-Control: no-store\r\n" +
		"ETag: \"0123456789abcdef\"\r\nVary: Accept-Encoding\r\n\r\n" + string(make([]byte, 1024)))
	b.ReportAllocs()
	var f framing
	for b.Loop() {
		f.begin(false)
		_, _ = f.take(answer)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []string{"p2c", "round_robin", "least_conn", "hash:ip"} {
		b.Run(balance, func(b *testing.B) {
			p, err := New(Config{To: []string{"http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"}, Balance: balance})
			if err != nil {
				b.Fatal(err)
			}
			r, _ := http.NewRequest(http.MethodGet, "/", nil)
			j := &journey{r: r, call: &Call{Client: netip.MustParseAddr("192.0.2.1")}}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.pick(j)
			}
		})
	}
}
