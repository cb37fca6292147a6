package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// WriteJSON writes v for programs, indented.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// WriteStatus writes `certs show` for people: a line for each fact.
func WriteStatus(w io.Writer, c CertStatus, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", key, printable(value))
		}
	}
	line("name", c.Name)
	line("for", c.For)
	line("site", c.Site)
	if c.Tenant != c.Name {
		line("tenant", c.Tenant)
	}
	line("state", c.State)
	line("ca", c.CA)
	line("serial", c.Serial)
	line("key", c.Key)
	line("begins", absolute(c.NotBefore, now))
	line("ends", absolute(c.NotAfter, now))
	line("renews", absolute(c.RenewAt, now))
	if r := c.Renewal; r != nil {
		line("ca's window", absolute(r.Start, now)+" to "+absolute(r.End, now))
		line("ca's reason", r.Explanation)
	}
	for _, r := range c.Revocations {
		line("revoked", r.text(now))
	}
	line("storage", c.Unread)
	statusTrouble(line, &c, now)
	for _, key := range noteKeys(c.Notes) {
		line(strings.ReplaceAll(printable(key), "_", " "), c.Notes[key])
	}
	if err := tw.Flush(); err != nil || c.Second == nil {
		return err
	}
	if _, err := fmt.Fprintln(w, "\nfor clients that cannot use this one:"); err != nil {
		return err
	}
	return WriteStatus(w, *c.Second, now)
}

// text says how far it has come.
func (r *RevocationStatus) text(now time.Time) string {
	text := "serial " + r.Serial + " of " + r.CA
	switch {
	case !r.Done.IsZero():
		text += ", done " + absolute(r.Done, now)
	case !r.Gone.IsZero():
		text += ", not served since " + absolute(r.Gone, now) + ", the CA is told"
	default:
		text += ", begun " + absolute(r.Begun, now) + ", served until it is replaced"
	}
	if r.Problem != "" {
		text += "; " + r.Problem
	}
	return text
}

// statusTrouble tells what an order waits for and what went wrong.
func statusTrouble(line func(key, value string), c *CertStatus, now time.Time) {
	if c.Position > 0 {
		line("queue", fmt.Sprintf("number %d, expected %s", c.Position, absolute(c.Expected, now)))
	}
	if c.Budget != "" {
		line("held back by", "issue.budget."+c.Budget)
	}
	if p := c.Permission; p != nil {
		line("permission", p.remembered(now))
		line("ask fails", p.outage(now))
	}
	line("lease held by", c.Holder)
	line("abandoned", c.Abandoned)
	line("last error", c.LastError)
	if f := c.Failure; f != nil {
		line("of", absolute(f.At, now))
		if f.Own {
			line("we saw", f.Detail)
		} else {
			line("ca says", strings.TrimSpace(f.Type+" "+f.Detail))
		}
		for _, of := range f.Names {
			line("", of)
		}
		line("seen from here", f.View)
		line("what to do", f.Advice)
	}
	if c.Attempts > 0 {
		line("attempts", fmt.Sprint(c.Attempts))
	}
	line("next attempt", nextAttempt(c, now))
	if c.CA == "" {
		line("may issue", strings.Join(c.MayIssue, ", "))
	}
}

// WriteRetried writes what came of `certs retry` of one name, or of all for the empty name.
func WriteRetried(w io.Writer, name string, done Retried, now time.Time) (err error) {
	name = printable(name)
	switch {
	case name == "":
		_, err = fmt.Fprintf(w, "names that are tried again: %d\n", done.Names)
	case !done.Serves.IsZero():
		_, err = fmt.Fprintf(w, "%s needs no attempt: it has a certificate until %s, which is renewed %s\n", name, absolute(done.Serves, now), relative(done.Renews, now))
	case done.Abandoned != "":
		_, err = fmt.Fprintf(w, "%s is looked at now, but is not renewed while this is so: %s\n", name, printable(done.Abandoned))
	case !done.Next.IsZero():
		_, err = fmt.Fprintf(w, "%s is tried at %s: issue.budget.failures_per_name does not allow it earlier\n", name, absolute(done.Next, now))
	case !done.Limited.IsZero():
		_, err = fmt.Fprintf(w, "%s is tried at %s: until then the CA takes none from us\n", name, absolute(done.Limited, now))
	default:
		_, err = fmt.Fprintf(w, "%s is tried now; `gatelodge certs show %s` tells the result\n", name, name)
	}
	return err
}

// nextAttempt is when it is tried again; empty if nothing is known of another attempt that is to come.
func nextAttempt(c *CertStatus, now time.Time) string {
	switch {
	case c.OnVisit && c.NextAttempt.After(now):
		return "not before " + absolute(c.NextAttempt, now) + ", then when a visitor comes"
	case c.OnVisit && c.LastError != "" && c.Abandoned == "":
		return "when a visitor comes"
	case c.NextAttempt.After(now):
		return absolute(c.NextAttempt, now)
	}
	return ""
}

// WriteUpstreams writes `upstreams` for people: a line for each target.
func WriteUpstreams(w io.Writer, all []UpstreamStatus, now time.Time) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no upstreams")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "UPSTREAM\tTARGET\tSTATE\tWEIGHT\tNOW\tREQUESTS\tFAILED\tLAST ERROR")
	for _, u := range all {
		for _, t := range u.Targets {
			lastError := printable(t.LastError)
			if !t.LastErrorAt.IsZero() {
				lastError += " (" + relative(t.LastErrorAt, now) + ")"
			}
			state := t.State
			if !t.OutUntil.IsZero() {
				state += " (back " + relative(t.OutUntil, now) + ")"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n",
				printable(u.Name), printable(t.Target), state, t.Weight, t.InFlight, t.Requests, t.Failures, orDash(lastError))
		}
	}
	return tw.Flush()
}

// WriteCA writes `acme status` for people: a line for each fact.
func WriteCA(w io.Writer, c CAStatus, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", key, printable(value))
		}
	}
	protocol := map[string]string{"2": "ACME v2 (RFC 8555)", "1": "ACME v1: DEPRECATED, moves up by itself as soon as the CA offers v2"}[c.Protocol]
	row("ca", c.Name)
	row("directory", c.Directory)
	row("directory_v1", c.DirectoryV1)
	row("protocol", protocol)
	row("state", c.State)
	row("evidence", c.Evidence)
	row("since", absolute(c.Since, now))
	row("trouble", c.Trouble)
	row("next probe", absolute(c.NextProbe, now))
	if c.OrdersV1 > 0 {
		row("orders over v1", strconv.Itoa(c.OrdersV1))
	}
	row("account", c.Account)
	row("last error", c.LastError)
	row("at", absolute(c.LastErrorAt, now))
	for _, l := range c.Limits {
		row("limit", l)
	}
	return tw.Flush()
}

func noteKeys(notes map[string]string) []string {
	keys := make([]string, 0, len(notes))
	for k := range notes {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// printable keeps a CA's words from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func absolute(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC") + " (" + relative(t, now) + ")"
}

// relative is "in 61d", "in 5m", "2h ago": the largest unit that fits at least twice, so that nothing is off by more than a half.
func relative(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := t.Sub(now)
	text := magnitude(d.Abs())
	switch {
	case text == "0s":
		return "now"
	case d < 0:
		return text + " ago"
	}
	return "in " + text
}

func magnitude(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= 2*u.size {
			return fmt.Sprintf("%d%s", (d+u.size/2)/u.size, u.name) // 6.99 days are 7
		}
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
