package admin

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteExplanation writes `certs explain` for people.
func WriteExplanation(w io.Writer, c CertStatus, now time.Time) error {
	_, err := io.WriteString(w, strings.Join(Explain(c, now), "\n")+"\n")
	return err
}

// Explain says in sentences how the certificate stands, why, what comes next and what a person can do.
func Explain(c CertStatus, now time.Time) (text []string) {
	say := func(format string, args ...any) { text = append(text, printable(fmt.Sprintf(format, args...))) }
	explainPresent(&c, now, say)
	for _, r := range c.Revocations {
		say("A certificate of it is revoked: %s.", strings.TrimSuffix(r.text(now), "."))
	}
	if c.Unread != "" {
		say("Storage cannot be read, so this is what the process remembers: %s.", c.Unread)
	}
	explainPermission(&c, now, say)
	explainFailure(&c, now, say)
	explainNext(&c, now, say)
	return text
}

// explainPresent says what clients get now.
func explainPresent(c *CertStatus, now time.Time, say func(string, ...any)) {
	if c.For != "" {
		say("%s is served with the certificate of %s.", c.For, c.Name)
	}
	switch {
	case c.State == "own file":
		say("%s has a certificate that its site brings, until %s. We do not renew it.", c.Name, absolute(c.NotAfter, now))
	case c.NotAfter.IsZero() && c.Unread != "":
		say("It is not known whether %s has a certificate.", c.Name)
	case c.NotAfter.IsZero():
		say("%s has no certificate: %s.", c.Name, c.State)
		if len(c.MayIssue) > 0 {
			say("It would come from %s.", strings.Join(c.MayIssue, ", else "))
		}
	case c.NotAfter.Before(now):
		say("The certificate of %s ended %s and is not served.", c.Name, relative(c.NotAfter, now))
	default:
		say("%s is served with a certificate from %s%s until %s.", c.Name, c.CA, how(c.Notes), absolute(c.NotAfter, now))
	}
}

// how tells the protocol and the challenge, if they are noted.
func how(notes map[string]string) string {
	var parts []string
	if v := notes["acme_version"]; v != "" {
		parts = append(parts, "ACME "+v)
	}
	if ch := notes["challenge"]; ch != "" {
		parts = append(parts, ch)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// explainFailure says what went wrong last and what to do about it.
func explainFailure(c *CertStatus, now time.Time, say func(string, ...any)) {
	if c.LastError == "" {
		return
	}
	when := ""
	if f := c.Failure; f != nil && !f.At.IsZero() {
		if when = " " + relative(f.At, now); when == " now" {
			when = " just now"
		}
	}
	say("The last attempt%s failed: %s.", when, strings.TrimSuffix(c.LastError, "."))
	f := c.Failure
	if f == nil {
		return
	}
	if f.Own {
		say("We saw that ourselves, and sent the CA no order.")
	}
	if f.View != "" {
		say("Seen from here: %s.", strings.TrimSuffix(f.View, "."))
	}
	if f.Paused {
		say("The CA has paused the name: it takes no orders for it until a person has been there.")
	}
	if f.Advice != "" {
		say("What to do: %s.", strings.TrimSuffix(f.Advice, "."))
	}
}

// explainNext says what happens by itself, and when.
func explainNext(c *CertStatus, now time.Time, say func(string, ...any)) {
	if c.Holder != "" {
		say("Being ordered just now, by %s.", c.Holder)
	}
	if c.Budget != "" {
		then := "by itself"
		if c.OnVisit {
			then = "when a visitor comes"
		}
		say("Our own budget issue.budget.%s is used up: nothing is ordered before %s, and then %s.", c.Budget, absolute(c.NextAttempt, now), then)
	}
	if c.Position > 0 {
		say("It is number %d in the queue, expected %s.", c.Position, relative(c.Expected, now))
	}
	switch {
	case c.Abandoned != "":
		say("It is not renewed any more: %s.", c.Abandoned)
	case c.Budget != "" || c.Position > 0:
	case c.OnVisit || c.NextAttempt.After(now):
		explainAttempt(c, now, say)
	case !c.RenewAt.IsZero() && !c.NotAfter.IsZero():
		say("It is renewed %s, %s.", relative(c.RenewAt, now), renewalReason(c.Renewal, now))
	}
	if c.Second != nil {
		say("Its second certificate, for clients that cannot use this one: %s.", c.Second.State)
	}
}

// explainAttempt says when it is tried again, and whether a person can have it earlier.
func explainAttempt(c *CertStatus, now time.Time, say func(string, ...any)) {
	waits := c.NextAttempt.Sub(now) >= time.Second
	next := "The next attempt is " + relative(c.NextAttempt, now)
	if c.OnVisit {
		next = "The next attempt is not before " + absolute(c.NextAttempt, now) + ", then when a visitor comes"
	}
	switch {
	case waits && c.Failure != nil && isLimit(c.Failure.Scope):
		say("%s: until then the CA takes none from us.", next)
	case waits:
		say("%s; `gatelodge certs retry %s` makes it earlier.", next, c.Name)
	case !c.OnVisit:
		say("%s.", next)
	case c.LastError != "":
		say("It is tried again when a visitor comes, or by `gatelodge certs retry %s`.", c.Name)
	}
}

// isLimit reports whether a failure of the scope is a limit of the CA's for more than one name, which no retry lifts.
func isLimit(scope string) bool {
	return scope == "account" || scope == "registered-domain" || scope == "address"
}

// renewalReason says who chose the time.
func renewalReason(r *Renewal, now time.Time) string {
	if r == nil {
		return "by its lifetime"
	}
	why := "as the CA asks, between " + absolute(r.Start, now) + " and " + absolute(r.End, now)
	if r.Explanation != "" {
		why += ", see " + r.Explanation
	}
	return why
}
