package admin

import "time"

// remembered is the verdict and how long it holds; empty if there is none.
func (p *Permission) remembered(now time.Time) string {
	switch {
	case p.Verdict == "":
		return ""
	case p.By == "names_file":
		return p.Verdict + " by names_file"
	}
	text := p.Verdict + " by ask " + agoOrNow(p.Asked, now)
	switch {
	case p.Until.After(now):
		text += ", not asked again before " + absolute(p.Until, now)
	case p.Failing != "" && p.Stale.After(now):
		text += ", holds while ask fails until " + absolute(p.Stale, now)
	}
	return text
}

// outage is since when ask fails, and why; empty if it does not.
func (p *Permission) outage(now time.Time) string {
	if p.Failing == "" {
		return ""
	}
	return "since " + absolute(p.Since, now) + ": " + p.Failing
}

// explainPermission says what keeps a name without a certificate from one, if it is the permission.
func explainPermission(c *CertStatus, now time.Time, say func(string, ...any)) {
	p := c.Permission
	if p == nil {
		return
	}
	absent := c.NotAfter.IsZero() || c.NotAfter.Before(now)
	switch {
	case p.Verdict == "denied" && p.By == "names_file":
		say("The file of on_demand.names_file does not have it, so that nothing is ordered for it.")
	case p.Verdict == "denied":
		say("ask denied it %s, and is not asked again before %s: until then nothing is ordered for it.", agoOrNow(p.Asked, now), absolute(p.Until, now))
	case p.Verdict == "allowed" && absent:
		say("It is %s.", p.remembered(now))
	}
	if p.Failing == "" {
		return
	}
	say("The ask endpoint fails since %s: %s.", absolute(p.Since, now), p.Failing)
	switch {
	case p.Verdict == "allowed" && p.Stale.After(now):
		say("What it said of this name before holds until %s.", absolute(p.Stale, now))
	case absent:
		say("While it does, the name gets no certificate: each visitor has it asked again, once a second at most.")
	}
}

// agoOrNow is relative for what is past.
func agoOrNow(t, now time.Time) string {
	if text := relative(t, now); text != "now" {
		return text
	}
	return "just now"
}
