package admin

import (
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample(now time.Time) []CertStatus {
	return []CertStatus{
		{
			Name: "example.com", Site: "example.com", State: "valid", CA: "letsencrypt", Serial: "04ab",
			NotBefore: now.Add(-29 * 24 * time.Hour), NotAfter: now.Add(61 * 24 * time.Hour), RenewAt: now.Add(31 * 24 * time.Hour),
			Notes: map[string]string{"order": "https://ca.example/order/1", "acme_version": "2"},
		},
		{
			Name: "new.example.com", Site: "example.com", State: "failing", Attempts: 2,
			LastError: "DNS problem: \x1b[31mNXDOMAIN", NextAttempt: now.Add(95 * time.Second),
		},
	}
}

func TestWriteTable_IsALineForEachCertificate(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	if err := WriteTable(&b, each(sample(now)), now); err != nil {
		t.Fatal(err)
	}
	want := `
NAME             STATE    CA           ENDS    RENEWS  LAST ERROR
example.com      valid    letsencrypt  in 61d  in 31d  -
new.example.com  failing  -            -       -       DNS problem:  [31mNXDOMAIN (next attempt in 95s)
`
	if diff := cmp.Diff(want, "\n"+b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	if err := WriteTable(&b, each(nil), now); err != nil || b.String() != "no such certificates\n" {
		t.Errorf("an empty table is %q, %v", b.String(), err)
	}
}

func TestWriteUpstreams_IsALineForEachTarget(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	if err := WriteUpstreams(&b, []UpstreamStatus{{Name: "app", Targets: []TargetStatus{
		{Target: "http://10.0.0.1:80", State: "up", Weight: 3, InFlight: 2, Requests: 100},
		{
			Target: "http://10.0.0.2:80", State: "out", Weight: 1, Requests: 7, Failures: 5, OutUntil: now.Add(10 * time.Second),
			LastError: "connection\x1b refused", LastErrorAt: now.Add(-time.Minute),
		},
	}}}, now); err != nil {
		t.Fatal(err)
	}
	want := `
UPSTREAM  TARGET              STATE              WEIGHT  NOW  REQUESTS  FAILED  LAST ERROR
app       http://10.0.0.1:80  up                 3       2    100       0       -
app       http://10.0.0.2:80  out (back in 10s)  1       0    7         5       connection  refused (60s ago)
`
	if diff := cmp.Diff(want, "\n"+b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	if err := WriteUpstreams(&b, nil, now); err != nil || b.String() != "no upstreams\n" {
		t.Errorf("none is %q, %v", b.String(), err)
	}
}

func TestWriteStatus_IsALineForEachFact(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	for _, c := range sample(now) {
		if err := WriteStatus(&b, c, now); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	want := `
name          example.com
site          example.com
state         valid
ca            letsencrypt
serial        04ab
begins        2025-12-03 12:00:00 UTC (29d ago)
ends          2026-03-03 12:00:00 UTC (in 61d)
renews        2026-02-01 12:00:00 UTC (in 31d)
acme version  2
order         https://ca.example/order/1

name          new.example.com
site          example.com
state         failing
last error    DNS problem:  [31mNXDOMAIN
attempts      2
next attempt  2026-01-01 12:01:35 UTC (in 95s)

`
	if diff := cmp.Diff(want, "\n"+b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteJSON_LeavesOutWhatIsNotThere(t *testing.T) {
	var b strings.Builder
	if err := WriteJSON(&b, CertStatus{Name: "a", State: "waiting"}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"name\": \"a\",\n  \"state\": \"waiting\"\n}\n"; b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
}

func TestRelative_SaysTimesInOneUnit(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		0: "now", 400 * time.Millisecond: "now", 59 * time.Second: "in 59s", 90 * time.Minute: "in 90m",
		-3 * time.Hour: "3h ago", 47 * time.Hour: "in 47h", 90 * 24 * time.Hour: "in 90d",
	} {
		if got := relative(now.Add(d), now); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := relative(time.Time{}, now); got != "-" {
		t.Errorf("no time: %q", got)
	}
}

func each(all []CertStatus) iter.Seq2[CertStatus, error] {
	return func(yield func(CertStatus, error) bool) {
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func TestWriteExplanation_PromisesNoAttemptWithoutAVisitor(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	held := CertStatus{
		Name: "a.example", State: "backing off", OnVisit: true, NextAttempt: now.Add(62 * time.Second), LastError: "no address",
		Failure: &Failure{Scope: "name", Type: "urn:ietf:params:acme:error:dns", Detail: "no address", Own: true},
	}
	over, due := held, held
	over.State, over.NextAttempt = "absent", now.Add(-3*time.Minute)
	due.State, due.NextAttempt, due.OnVisit = "waiting for the CA", now.Add(time.Millisecond), false
	spent := CertStatus{Name: "b.example", State: "absent", Budget: "new_orders", OnVisit: true, NextAttempt: now.Add(time.Hour)}
	queued := CertStatus{Name: "c.example", State: "waiting for a budget", Budget: "new_orders", Position: 1, Expected: now.Add(time.Hour)}
	var b strings.Builder
	for _, c := range []CertStatus{held, over, due, spent} {
		if err := WriteExplanation(&b, c, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []CertStatus{held, over} {
		if err := WriteStatus(&b, c, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteTable(&b, each([]CertStatus{held, over, spent, queued}), now); err != nil {
		t.Fatal(err)
	}
	want := `
a.example has no certificate: backing off.
The last attempt failed: no address.
We saw that ourselves, and sent the CA no order.
The next attempt is not before 2026-01-01 12:01:02 UTC (in 62s), then when a visitor comes; 'gatelodge certs retry a.example' makes it earlier.
a.example has no certificate: absent.
The last attempt failed: no address.
We saw that ourselves, and sent the CA no order.
It is tried again when a visitor comes, or by 'gatelodge certs retry a.example'.
a.example has no certificate: waiting for the CA.
The last attempt failed: no address.
We saw that ourselves, and sent the CA no order.
The next attempt is now.
b.example has no certificate: absent.
Our own budget issue.budget.new_orders is used up: nothing is ordered before 2026-01-01 13:00:00 UTC (in 60m), and then when a visitor comes.
name          a.example
state         backing off
last error    no address
we saw        no address
next attempt  not before 2026-01-01 12:01:02 UTC (in 62s), then when a visitor comes
name          a.example
state         absent
last error    no address
we saw        no address
next attempt  when a visitor comes
NAME       STATE                 CA  ENDS  RENEWS  LAST ERROR
a.example  backing off           -   -     -       no address (next attempt in 62s at the earliest, then when a visitor comes)
a.example  absent                -   -     -       no address (next attempt when a visitor comes)
b.example  absent                -   -     -       budget new_orders is used up (next attempt in 60m at the earliest, then when a visitor comes)
c.example  waiting for a budget  -   -     -       budget new_orders is used up (number 1 in the queue, expected in 60m)
`
	if diff := cmp.Diff(strings.ReplaceAll(want, "'", "\x60"), "\n"+b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteExplanation_SaysHowItStandsAndWhatToDo(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	certs := sample(now)
	certs[0].Renewal = &Renewal{Start: now.Add(30 * 24 * time.Hour), End: now.Add(32 * 24 * time.Hour)}
	certs[1].Failure = &Failure{At: now.Add(-time.Hour), Advice: "add an address record", View: "it has no address"}
	certs = append(certs, CertStatus{
		Name: "held.example.com", State: "waiting for a budget", Budget: "per_tenant", Position: 3, NextAttempt: now.Add(time.Hour), Expected: now.Add(2 * time.Hour), MayIssue: []string{"a", "b"},
	}, CertStatus{
		Name: "limited.example.com", State: "waiting for the CA", NextAttempt: now.Add(2 * time.Minute), LastError: "too many orders",
		Failure: &Failure{At: now, Scope: "account", Advice: "wait"},
	})
	var b strings.Builder
	for _, c := range certs {
		if err := WriteExplanation(&b, c, now); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	want := `
example.com is served with a certificate from letsencrypt (ACME 2) until 2026-03-03 12:00:00 UTC (in 61d).
It is renewed in 31d, as the CA asks, between 2026-01-31 12:00:00 UTC (in 30d) and 2026-02-02 12:00:00 UTC (in 32d).

new.example.com has no certificate: failing.
The last attempt 60m ago failed: DNS problem:  [31mNXDOMAIN.
Seen from here: it has no address.
What to do: add an address record.
The next attempt is in 95s; ` + "`gatelodge certs retry new.example.com`" + ` makes it earlier.

held.example.com has no certificate: waiting for a budget.
It would come from a, else b.
Our own budget issue.budget.per_tenant is used up: nothing is ordered before 2026-01-01 13:00:00 UTC (in 60m), and then by itself.
It is number 3 in the queue, expected in 2h.

limited.example.com has no certificate: waiting for the CA.
The last attempt just now failed: too many orders.
What to do: wait.
The next attempt is in 2m: until then the CA takes none from us.

`
	if diff := cmp.Diff(want, "\n"+b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteStatusAndExplanation_TellWhatThePermissionSaid(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ended := now.Add(time.Hour)
	for _, c := range []struct {
		p             Permission
		serving       bool
		shown, spoken []string
	}{
		{
			Permission{By: "ask", Verdict: "denied", Asked: now.Add(-12 * time.Second), Until: now.Add(48 * time.Second)}, false,
			[]string{"permission  denied by ask 12s ago, not asked again before 2026-01-01 12:00:48 UTC (in 48s)\n"},
			[]string{"ask denied it 12s ago, and is not asked again before 2026-01-01 12:00:48 UTC (in 48s): until then nothing is ordered for it.\n"},
		},
		{
			Permission{By: "ask", Failing: "the ask endpoint cannot tell: it answered 500", Since: now.Add(-time.Hour)}, false,
			[]string{"ask fails  since 2026-01-01 11:00:00 UTC (60m ago): the ask endpoint cannot tell: it answered 500\n"},
			[]string{"The ask endpoint fails since 2026-01-01 11:00:00 UTC (60m ago): the ask endpoint cannot tell: it answered 500.\n", "the name gets no certificate"},
		},
		{
			Permission{By: "ask", Verdict: "allowed", Asked: now.Add(-48 * time.Hour), Failing: "it answered 500", Since: now, Stale: now.Add(48 * time.Hour)}, true,
			[]string{"allowed by ask 2d ago, holds while ask fails until 2026-01-03 12:00:00 UTC (in 2d)\n"},
			[]string{"What it said of this name before holds until 2026-01-03 12:00:00 UTC (in 2d).\n"},
		},
		{
			Permission{By: "names_file", Verdict: "denied"}, false,
			[]string{"permission  denied by names_file\n"}, []string{"The file of on_demand.names_file does not have it"},
		},
		{Permission{By: "names_file", Verdict: "allowed"}, true, []string{"permission  allowed by names_file\n"}, nil},
	} {
		status := CertStatus{Name: "a.test", State: "absent", Permission: &c.p}
		if c.serving {
			status.NotAfter, status.State = ended, "serving"
		}
		var shown, spoken strings.Builder
		if err := errors.Join(WriteStatus(&shown, status, now), WriteExplanation(&spoken, status, now)); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.shown {
			if !strings.Contains(shown.String(), want) {
				t.Errorf("%+v is shown as\n%swant %s", c.p, shown.String(), want)
			}
		}
		for _, want := range c.spoken {
			if !strings.Contains(spoken.String(), want) {
				t.Errorf("%+v is explained as\n%swant %s", c.p, spoken.String(), want)
			}
		}
	}
}

func TestWriteRetried_SaysWhatIsTrue(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for want, done := range map[string]Retried{
		"a.test is tried now; `gatelodge certs show a.test` tells the result\n":                                           {Names: 1},
		"a.test is tried at 2026-01-01 13:00:00 UTC (in 60m): issue.budget.failures_per_name does not allow it earlier\n": {Names: 1, Next: now.Add(time.Hour)},
		"a.test is tried at 2026-01-01 14:00:00 UTC (in 2h): until then the CA takes none from us\n":                      {Names: 1, Limited: now.Add(2 * time.Hour)},
		"a.test needs no attempt: it has a certificate until 2026-03-02 12:00:00 UTC (in 60d), which is renewed in 30d\n": {Serves: now.Add(60 * 24 * time.Hour), Renews: now.Add(30 * 24 * time.Hour)},
		"a.test is looked at now, but is not renewed while this is so: nobody has visited it for long\n":                  {Abandoned: "nobody has visited it for long"},
	} {
		var b strings.Builder
		if err := WriteRetried(&b, "a.test", done, now); err != nil || b.String() != want {
			t.Errorf("%+v: %q, %v; want %q", done, b.String(), err, want)
		}
	}
	var b strings.Builder
	if err := WriteRetried(&b, "", Retried{Names: 7}, now); err != nil || b.String() != "names that are tried again: 7\n" {
		t.Errorf("all: %q, %v", b.String(), err)
	}
}

func TestWriteStatusAndExplanation_TellOfRevocationsAndOfStorageThatIsAway(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c := CertStatus{
		Name: "a.test", State: "unknown", Unread: "read certs/a.test: no answer",
		Revocations: []RevocationStatus{
			{Serial: "0a", CA: "le", Begun: now.Add(-time.Hour), Gone: now.Add(-time.Hour), Problem: "503"},
			{Serial: "0b", CA: "le", Begun: now.Add(-3 * time.Hour), Gone: now.Add(-3 * time.Hour), Done: now.Add(-2 * time.Hour)},
		},
	}
	var shown, spoken strings.Builder
	if err := errors.Join(WriteStatus(&shown, c, now), WriteExplanation(&spoken, c, now)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"revoked  serial 0a of le, not served since 2026-01-01 11:00:00 UTC (60m ago), the CA is told; 503\n",
		"revoked  serial 0b of le, done 2026-01-01 10:00:00 UTC (2h ago)\n", "storage  read certs/a.test: no answer\n",
	} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("shown as\n%swant %s", shown.String(), want)
		}
	}
	for _, want := range []string{
		"It is not known whether a.test has a certificate.\n", "A certificate of it is revoked: serial 0b of le, done", "what the process remembers: read certs/a.test",
	} {
		if !strings.Contains(spoken.String(), want) {
			t.Errorf("explained as\n%swant %s", spoken.String(), want)
		}
	}
}

func TestWriteTable_SaysWhatKeepsASecondCertificate(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c := CertStatus{Name: "a.test", State: "serving", CA: "le", NotAfter: now.Add(time.Hour), Second: &CertStatus{Name: "a.test+rsa", Budget: "new_orders", NextAttempt: now.Add(time.Hour)}}
	var b strings.Builder
	if err := WriteTable(&b, each([]CertStatus{c}), now); err != nil || !strings.Contains(b.String(), "second certificate: budget new_orders is used up (next attempt in 60m)") {
		t.Errorf("%s, %v", b.String(), err)
	}
}
