package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// informedCA is a fakeCA that says when to renew.
type informedCA struct {
	*fakeCA

	mu       sync.Mutex // guards what follows
	answer   func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error)
	asks     []call
	together int // questions under way
	most     int
}

var _ RenewalInformer = (*informedCA)(nil)

func (c *informedCA) RenewalInfo(ctx context.Context, id string) (RenewalInfo, error) {
	c.fakeCA.mu.Lock()
	leaf := c.issued[id]
	c.fakeCA.mu.Unlock()
	if leaf == nil {
		return RenewalInfo{}, errors.New("no such certificate")
	}
	c.mu.Lock()
	answer := c.answer
	c.asks = append(c.asks, call{name: leaf.DNSNames[0], at: time.Now()})
	c.together++
	c.most = max(c.most, c.together)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.together--
		c.mu.Unlock()
	}()
	return answer(ctx, leaf)
}

func (c *informedCA) say(f func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

func (c *informedCA) fail(err error) {
	c.say(func(context.Context, *x509.Certificate) (RenewalInfo, error) { return RenewalInfo{}, err })
}

// suggest says the same for every certificate.
func (c *informedCA) suggest(info RenewalInfo) {
	c.say(func(context.Context, *x509.Certificate) (RenewalInfo, error) {
		info.NextCheck = time.Now().Add(6 * time.Hour)
		return info, nil
	})
}

func (c *informedCA) questions() []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asks)
}

// asLetsEncrypt: the window is 2 % of the life around two thirds of it.
func asLetsEncrypt(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := leaf.NotBefore.Add(scale(life, 2.0/3))
	return RenewalInfo{Window: Window{at.Add(-life / 100), at.Add(life / 100)}, NextCheck: time.Now().Add(6 * time.Hour)}, nil
}

// newInformed is a house whose CA says when to renew.
func newInformed(t testing.TB) (*house, *informedCA) {
	h := newHouse(t)
	ca := &informedCA{fakeCA: h.ca, answer: asLetsEncrypt}
	h.set.CAs, h.set.ARI = []CA{{Issuer: ca}}, true
	return h, ca
}

func TestARI_RenewsInsideTheWindowNamingThePredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com", "*.example.com")
		h.open()
		time.Sleep(2 * time.Hour)
		windows := map[string]Window{}
		for _, name := range []string{"a.example.com", "*.example.com"} {
			s, err := h.m.Status(t.Context(), name)
			if err != nil || s.Renewal == nil || s.RenewAt.Before(s.Renewal.Start) || !s.RenewAt.Before(s.Renewal.End) || s.Renewal.Asked.IsZero() {
				t.Fatalf("%+v, %v", s, err)
			}
			windows[name] = Window{s.Renewal.Start, s.Renewal.End}
		}
		time.Sleep(70 * day)
		for name, w := range windows {
			order := h.ca.asked(name)[1]
			if order.at.Before(w.Start) || !order.at.Before(w.End) || !order.pred {
				t.Errorf("%s: renewed at %v, window %v, predecessor %v", name, order.at, w, order.pred)
			}
		}
		h.wantIssued("", 4)
		asks := ca.questions()
		if n := len(asks); n < 2*4*70*9/10 || n > 2*4*71 {
			t.Errorf("%d questions in 70 days about two certificates", n)
		}
	})
}

func TestARI_FollowsAWindowThatMoves(t *testing.T) {
	for _, c := range []struct {
		why      string
		from, to time.Duration // the new window, seen on day 10
		before   time.Duration // renewed not before, and not after
		after    time.Duration
	}{
		{"earlier", 5 * day, 6 * day, 15 * day, 16 * day},
		{"later than our rule", 70 * day, 71 * day, 80 * day, 81 * day},
		{"it has begun", -day, day, 10 * day, 11*day + 7*time.Hour},
		{"it is over: revoked by somebody else", -time.Hour, -30 * time.Minute, 10 * day, 10*day + 7*time.Hour},
	} {
		t.Run(c.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, ca := newInformed(t)
				h.listing("a.example.com")
				h.log = quiet()
				h.open()
				first, begin := h.must("a.example.com"), time.Now()
				time.Sleep(10 * day)
				ca.say(func(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
					if !leaf.Equal(first) {
						return asLetsEncrypt(t.Context(), leaf)
					}
					now := begin.Add(10 * day)
					return RenewalInfo{Window: Window{now.Add(c.from), now.Add(c.to)}, Explanation: "https://ca.example/incident"}, nil
				})
				time.Sleep(8 * time.Hour)
				if s, err := h.m.Status(t.Context(), "a.example.com"); h.must("a.example.com").Equal(first) && (err != nil || s.Renewal.Explanation != "https://ca.example/incident") {
					t.Errorf("%+v, %v", s.Renewal, err)
				}
				time.Sleep(75 * day)
				order := h.ca.asked("")[1]
				if at := order.at.Sub(begin); at < c.before || at > c.after || !order.pred {
					t.Errorf("renewed after %s", at)
				}
				if sameKey(h.must("a.example.com").PublicKey, first.PublicKey) {
					t.Error("renewed with the same key")
				}
			})
		})
	}
}

func TestARI_IgnoresWhatMakesNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com")
		h.log = quiet()
		window := Window{time.Now().Add(40 * day), time.Now().Add(41 * day)}
		ca.suggest(RenewalInfo{Window: window})
		h.open()
		time.Sleep(day)
		for i, w := range []Window{{}, {window.End, window.Start}, {window.Start, window.Start}, {time.Now().Add(200 * day), time.Now().Add(201 * day)}} {
			ca.suggest(RenewalInfo{Window: w, Explanation: "javascript:alert(1)"})
			time.Sleep(day)
			s, err := h.m.Status(t.Context(), "a.example.com")
			if err != nil || s.Renewal == nil || !s.Renewal.Start.Equal(window.Start) || !s.Renewal.End.Equal(window.End) || s.Renewal.Explanation != "" {
				t.Errorf("%d: %+v, %v", i, s.Renewal, err)
			}
		}
		ca.fail(errors.New("HTML instead of JSON"))
		time.Sleep(40 * day)
		if order := h.ca.asked("")[1]; order.at.Before(window.Start) || !order.at.Before(window.End) {
			t.Errorf("renewed at %v", order.at)
		}
	})
}

func TestARI_RestartNeitherForgetsNorAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		ca.suggest(RenewalInfo{Window: Window{time.Now().Add(20 * day), time.Now().Add(21 * day)}, Explanation: "https://ca.example/why"})
		h.open()
		const names = 30
		for i := range names {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
		time.Sleep(3 * time.Hour)
		before := len(ca.questions())
		if before != names {
			t.Fatalf("%d questions about %d names", before, names)
		}
		for range 5 {
			h.m.Close()
			h.open()
			time.Sleep(20 * time.Minute)
		}
		if n := len(ca.questions()) - before; n != 0 {
			t.Errorf("%d questions more after restarts", n)
		}
		ca.fail(errors.New("down"))
		h.log = quiet()
		h.m.Close()
		h.open()
		time.Sleep(time.Hour)
		s, err := h.m.Status(t.Context(), "n7.example.com")
		if err != nil || s.Renewal == nil || s.Renewal.Explanation != "https://ca.example/why" || s.RenewAt.Before(s.Renewal.Start) {
			t.Errorf("%+v, %v", s, err)
		}
		time.Sleep(21 * day)
		h.wantIssued("", 2*names)
	})
}

// Measured with 10,000 names: at most 1,530 questions in a minute.
func TestARI_AStartWithManyNamesDoesNotHammer(t *testing.T) {
	const names = 600
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.set.ARI = false
		for i := range names {
			h.set.Listed = append(h.set.Listed, fmt.Sprintf("n%d.example.com", i))
		}
		h.open()
		time.Sleep(time.Minute)
		h.wantIssued("", names)
		h.m.Close()
		ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			time.Sleep(100 * time.Millisecond)
			return asLetsEncrypt(ctx, leaf)
		})
		for _, what := range []string{"of which nothing is known", "that are all overdue"} {
			h.set.ARI = true
			before, began := len(ca.questions()), time.Now()
			h.open()
			time.Sleep(90 * time.Minute)
			h.m.Close()
			asks := ca.questions()[before:]
			perMinute := map[int]int{}
			for _, a := range asks {
				perMinute[int(a.at.Sub(began)/time.Minute)]++
			}
			worst := 0
			for _, n := range perMinute {
				worst = max(worst, n)
			}
			if len(asks) != names || worst > names/5 || ca.most > infoTogether {
				t.Errorf("names %s: %d questions, %d in a minute, %d at a time", what, len(asks), worst, ca.most)
			}
			time.Sleep(2 * day)
		}
	})
}

func TestARI_ProcessesThatShareTheIndexAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com", "b.example.com", "c.example.com")
		managers := []*Manager{h.open(), h.open(), h.open()}
		time.Sleep(10 * day)
		if n := len(ca.questions()); n < 3*4*9 || n > 3*(4*10+1) {
			t.Errorf("%d questions in 10 days about 3 names by 3 processes", n)
		}
		want, err := managers[0].Status(t.Context(), "a.example.com")
		if err != nil {
			t.Fatal(err)
		}
		window, seen := Window{time.Now().Add(3 * day), time.Now().Add(4 * day)}, time.Now()
		ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			if leaf.NotBefore.After(seen) {
				return asLetsEncrypt(ctx, leaf)
			}
			return RenewalInfo{Window: window, NextCheck: time.Now().Add(6 * time.Hour)}, nil
		})
		time.Sleep(day)
		for i, m := range managers {
			s, err := m.Status(t.Context(), "a.example.com")
			if err != nil || !s.Renewal.Start.Equal(window.Start) || s.RenewAt.Equal(want.RenewAt) {
				t.Errorf("process %d: %+v, %v", i, s.Renewal, err)
			}
			want = s
			want.RenewAt = time.Time{}
		}
		if a, b := managers[0].renewAt(managers[0].cache.cert("a.example.com")), managers[1].renewAt(managers[1].cache.cert("a.example.com")); !a.Equal(b) {
			t.Errorf("two processes chose %s and %s", a, b)
		}
		time.Sleep(4 * day)
		h.wantIssued("", 6)
	})
}

func TestARI_ACAWithoutRenewalInformationIsAskedDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.ca.life = 30 * day
		h.listing("a.example.com", "b.example.com", "c.example.com")
		ca.suggest(RenewalInfo{Window: Window{time.Now().Add(2 * day), time.Now().Add(3 * day)}})
		h.open()
		time.Sleep(2 * time.Hour)
		before := len(ca.questions())
		ca.fail(fmt.Errorf("directory: %w", ErrNoRenewalInfo))
		time.Sleep(10 * day)
		if n := len(ca.questions()) - before; n < 9 || n > 14 {
			t.Errorf("%d questions in 10 days", n)
		}
		h.wantIssued("", 3) // the window it once gave is forgotten
		if s, err := h.m.Status(t.Context(), "a.example.com"); err != nil || s.Renewal != nil || s.RenewAt.Before(time.Now().Add(8*day)) {
			t.Errorf("%+v, %v", s, err)
		}
		time.Sleep(11 * day)
		h.wantIssued("", 6)
		ca.say(asLetsEncrypt)
		time.Sleep(3 * day)
		for _, name := range h.set.Listed {
			if s, err := h.m.Status(t.Context(), name); err != nil || s.Renewal == nil {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
	})
}

func TestARI_AnOddCertificateWithoutInformationIsNotTakenForItsCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com", "b.example.com", "odd.example.com")
		ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			if leaf.DNSNames[0] == "odd.example.com" {
				return RenewalInfo{}, ErrNoRenewalInfo
			}
			return asLetsEncrypt(ctx, leaf)
		})
		h.open()
		time.Sleep(10 * day)
		asks := map[string]int{}
		for _, q := range ca.questions() {
			asks[q.name]++
		}
		if asks["a.example.com"] < 35 || asks["b.example.com"] < 35 || asks["odd.example.com"] > 11 {
			t.Errorf("%v", asks)
		}
	})
}

func TestARI_AFailingCAIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.log = quiet()
		for i := range 200 {
			h.set.Listed = append(h.set.Listed, fmt.Sprintf("n%d.example.com", i))
		}
		h.open()
		time.Sleep(2 * time.Hour)
		before := len(ca.questions())
		ca.fail(errors.New("503"))
		time.Sleep(day)
		if n := len(ca.questions()) - before; n > 24*10 {
			t.Errorf("%d questions to a failing CA in a day", n)
		}
		end := time.Now().Add(5 * time.Hour)
		ca.fail(&fakeFailure{scope: ScopeAddress, retryAt: end})
		time.Sleep(time.Hour + 30*time.Minute)
		before = len(ca.questions())
		time.Sleep(time.Until(end) - time.Second)
		if n := len(ca.questions()) - before; n != 0 {
			t.Errorf("%d questions before the Retry-After", n)
		}
		ca.say(asLetsEncrypt)
		time.Sleep(8 * time.Hour)
		asked := map[string]bool{}
		for _, q := range ca.questions()[before:] {
			asked[q.name] = true
		}
		if len(asked) != 200 {
			t.Errorf("afterwards %d of 200 names were asked about", len(asked))
		}
	})
}

func TestARI_OneCertificateThatTheCADoesNotKnowKeepsNoOtherFromBeingAskedAbout(t *testing.T) {
	for _, failure := range []error{&fakeFailure{scope: ScopeName}, errors.New("404")} {
		synctest.Test(t, func(t *testing.T) {
			h, ca := newInformed(t)
			h.log = quiet()
			h.listing("bad.example.com", "good.example.com")
			ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
				if leaf.DNSNames[0] == "bad.example.com" {
					return RenewalInfo{}, failure
				}
				return asLetsEncrypt(ctx, leaf)
			})
			h.open()
			time.Sleep(10 * day)
			asks := map[string]int{}
			for _, q := range ca.questions() {
				asks[q.name]++
			}
			if asks["good.example.com"] < 30 || asks["bad.example.com"] > 60 {
				t.Errorf("%v", asks)
			}
		})
	}
}

func TestARI_OffAsksNobodyAndCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com")
		h.set.ARI = false
		begin := time.Now()
		ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			if leaf.NotBefore.After(begin) {
				return asLetsEncrypt(ctx, leaf)
			}
			return RenewalInfo{Window: Window{begin.Add(20 * day), begin.Add(21 * day)}, NextCheck: time.Now().Add(6 * time.Hour)}, nil
		})
		apply := func(on bool) {
			h.set.ARI = on
			if err := h.m.Apply(h.set); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Hour)
		}
		h.open()
		time.Sleep(10 * day)
		if n := len(ca.questions()); n != 0 {
			t.Errorf("%d questions", n)
		}
		apply(true)
		if n := len(ca.questions()); n != 1 {
			t.Errorf("switched on: %d questions", n)
		}
		apply(false)
		if s, err := h.m.Status(t.Context(), "a.example.com"); err != nil || s.Renewal != nil {
			t.Errorf("switched off: %+v, %v", s.Renewal, err)
		}
		time.Sleep(20 * day)
		h.wantIssued("", 1)
		if n := len(ca.questions()); n != 1 {
			t.Errorf("switched off: %d questions", n)
		}
		apply(true)
		h.wantIssued("", 2) // the window is over by now
	})
}

func TestARI_ACAThatAlwaysSaysNowDoesNotMakeUsOrderInACircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.log = quiet()
		h.ca.life = 10 * day
		h.listing("a.example.com")
		ca.say(func(context.Context, *x509.Certificate) (RenewalInfo, error) {
			now := time.Now()
			return RenewalInfo{Window: Window{now.Add(-time.Hour), now.Add(-30 * time.Minute)}, NextCheck: now.Add(10 * time.Minute)}, nil
		})
		h.open()
		time.Sleep(10 * day)
		if n := len(h.ca.asked("")); n < 10 || n > 21 {
			t.Errorf("%d orders in 10 days", n)
		}
	})
}

func TestARI_HandshakesNeverWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.log = quiet()
		ca.say(func(ctx context.Context, _ *x509.Certificate) (RenewalInfo, error) {
			<-ctx.Done()
			return RenewalInfo{}, ctx.Err()
		})
		h.open()
		for range 200 {
			began := time.Now()
			h.must("a.example.com")
			h.m.cache.drop("a.example.com")
			h.must("a.example.com")
			if took := time.Since(began); took > 0 {
				t.Fatalf("a handshake took %s", took)
			}
			time.Sleep(time.Minute)
		}
		if len(ca.questions()) == 0 {
			t.Error("nothing was asked, the test says nothing")
		}
		h.m.Close()
	})
}

func TestARI_StorageFaultsDelayQuestionsAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.log = quiet()
		h.listing("a.example.com")
		h.open()
		first := h.must("a.example.com")
		h.store.Set(storagetest.Fault{Prefix: "index/"})
		time.Sleep(day)
		if n := len(ca.questions()); n != 0 {
			t.Errorf("%d questions that could not be claimed", n)
		}
		h.store.Set()
		time.Sleep(time.Hour)
		if n := len(ca.questions()); n != 1 {
			t.Errorf("%d questions", n)
		}
		if !h.must("a.example.com").Equal(first) {
			t.Error("another certificate")
		}
	})
}

func TestARI_AYearOfShortLivedCertificatesIsRenewedInsideEveryWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.listing("a.example.com")
		h.ca.life = 160 * time.Hour
		var mu sync.Mutex // guards windows
		windows := map[string]Window{}
		ca.say(func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			mid := leaf.NotBefore.Add(80 * time.Hour)
			w := Window{mid.Add(-96 * time.Minute), mid.Add(96 * time.Minute)}
			mu.Lock()
			defer mu.Unlock()
			windows[leaf.SerialNumber.String()] = w
			return RenewalInfo{Window: w, NextCheck: time.Now().Add(6 * time.Hour)}, nil
		})
		h.open()
		for range 365 / 2 {
			h.must("a.example.com")
			time.Sleep(2 * day)
		}
		mu.Lock()
		defer mu.Unlock()
		orders := h.ca.asked("")
		for _, o := range orders[1:] {
			inside := false
			for _, w := range windows {
				inside = inside || !o.at.Before(w.Start) && o.at.Before(w.End)
			}
			if !inside || !o.pred {
				t.Errorf("order at %v: in a window %v, with its predecessor %v", o.at, inside, o.pred)
			}
		}
		if n := len(orders); n < 105 || n > 115 {
			t.Errorf("%d orders", n)
		}
	})
}

func TestNextCheck_Table(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		why    string
		word   time.Time
		spread float64
		want   time.Duration
	}{
		{"no word", time.Time{}, 0, 6 * time.Hour},
		{"the CA's word", now.Add(5 * time.Hour), 0, 5 * time.Hour},
		{"a tenth later at most", now.Add(10 * time.Hour), 1, 11 * time.Hour},
		{"too often", now.Add(time.Second), 0, time.Minute},
		{"in the past", now.Add(-time.Hour), 0, time.Minute},
		{"too seldom", now.Add(1000 * day), 0, day},
	} {
		if got := nextCheck(c.word, now, c.spread).Sub(now); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
	}
}

// informable is a certificate of 90 days, 30 days old.
func informable(now time.Time) *certificate {
	leaf := &x509.Certificate{NotBefore: now.Add(-30 * day), NotAfter: now.Add(60 * day), SerialNumber: big7()}
	return &certificate{name: "a.example.com", tls: tlsOf(leaf), issued: leaf.NotBefore}
}

func FuzzSuggestion(f *testing.F) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Add(int64(10*day/time.Second), int64(11*day/time.Second), int64(6*3600), "https://ca.example/")
	f.Add(int64(-3600), int64(-1800), int64(0), "")
	f.Add(int64(5), int64(-5), int64(-1), "javascript:")
	f.Fuzz(func(t *testing.T, start, end, next int64, url string) {
		at := func(s int64) time.Time { return now.Add(time.Duration(s%(1<<33)) * time.Second) }
		c := informable(now).identity()
		info := RenewalInfo{Window: Window{at(start), at(end)}, Explanation: url, NextCheck: at(next)}
		s := suggestion{}.hear(c, info, now)
		if again := s.hear(c, info, now.Add(time.Minute)); again.Renew != s.Renew {
			t.Fatalf("the same window gave %d and %d", s.Renew, again.Renew)
		}
		if s.Next < now.Add(checkOften).Unix() || s.Next > now.Add(checkSeldom+checkSeldom/10).Unix() {
			t.Fatalf("next question at %d", s.Next)
		}
		if s.Renew == 0 {
			return
		}
		over := !info.Window.End.After(now)
		if renew := unixTime(s.Renew); renew.Before(info.Window.Start) || !over && !renew.Before(info.Window.End) ||
			over && renew.After(now.Add(atOnceWithin)) || !renew.Before(c.ends) {
			t.Fatalf("window %v: renewed at %v", info.Window, renew)
		}
	})
}

func TestARI_ARevokedCertificateIsReplacedByAnotherCAIfItsOwnFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.log = quiet()
		second := newFakeCA(t, "second")
		h.set.CAs = append(h.set.CAs, CA{Issuer: second})
		h.set.Failover = Failover{After: 5, BackAfter: day}
		h.listing("a.example.com")
		h.open()
		time.Sleep(20 * day)
		h.ca.failWith(errors.New("in trouble"))
		ca.suggest(RenewalInfo{Window: Window{time.Now().Add(-time.Hour), time.Now().Add(-30 * time.Minute)}})
		time.Sleep(8 * time.Hour)
		if _, err := hello(h.m, "a.example.com", second.pool()); err != nil {
			t.Error(err)
		}
	})
}
