package config

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// maxWeight is the largest weight of a target.
const maxWeight = 1000

// maxRetries keeps one request from going through a whole fleet.
const maxRetries = 10

// upstream looks at what decides who gets a request.
func (v *validator) upstream(u *Upstream, src *source) {
	for i, t := range u.To {
		if j := slices.Index(u.To, t); j < i {
			v.fault(src.key("to").elem(i), "give it more by `weights`", "%q is already at %s", t, src.key("to").elem(j).place())
		}
	}
	v.weights(u, src.key("weights"))
	if !balances(u.Balance) {
		const known = "p2c, round_robin, least_conn, first, hash:ip, hash:header:NAME, hash:cookie:NAME"
		v.fault(src.key("balance"), "write one of "+known, "unknown value %q", clip(u.Balance))
	}
	if u.Sticky != "" && !isToken(u.Sticky) {
		v.fault(src.key("sticky"), `write a name such as "lb"`, "%q is no name of a cookie", clip(u.Sticky))
	}
	if u.Sticky == "" && u.StickyKey != (Secret{}) {
		v.warn(src.key("sticky_key"), "name the cookie by `sticky`", "sticky_key has no effect without a cookie")
	}
	if len(u.To) == 1 && (u.Sticky != "" || u.SlowStart > 0) {
		v.warn(src, "give more than one in to", "sticky and slow_start have no effect on a single target")
	}
	if u.Retries.Max > maxRetries {
		v.fault(src.key("retries").key("max"), "write 0 to 10", "%d retries of one request", u.Retries.Max)
	}
	v.health(&u.Health, src.key("health"))
	if u.Passive.Fails > 0 {
		v.positive(src.key("passive").key("within"), u.Passive.Within)
		v.positive(src.key("passive").key("out_for"), u.Passive.OutFor)
	}
	if u.ResolveEvery != 0 && u.ResolveEvery < time.Second {
		v.fault(src.key("resolve_every"), `write "1s" or more, or "0s" for at every new connection`, "%s is too often", u.ResolveEvery)
	}
	if (u.TLS.Certificate == "") != (u.TLS.Key == "") {
		v.fault(src.key("tls"), "give both or none", "a client certificate is `certificate` and `key`")
	}
}

func (v *validator) weights(u *Upstream, src *source) {
	if len(u.Weights) == 0 {
		return
	}
	if len(u.Weights) != len(u.To) {
		v.fault(src, "give one for each target", "%d weights for %d targets", len(u.Weights), len(u.To))
	}
	for i, w := range u.Weights {
		if w > maxWeight {
			v.fault(src.elem(i), "write 0 to 1000", "%d is out of range", w)
		}
	}
	if slices.Max(u.Weights) == 0 {
		v.fault(src, "give one target more than 0", "all weights are 0: no target would get anything")
	}
}

func (v *validator) health(h *Health, src *source) {
	if h.Path == "" {
		return
	}
	if !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		v.fault(src.key("path"), `write "/up"`, "%q is no path", clip(h.Path))
	}
	v.positive(src.key("every"), h.Every)
	v.positive(src.key("timeout"), h.Timeout)
	if h.Rise == 0 {
		v.fault(src.key("rise"), "write 1 or more", "no probe would bring a target back")
	}
	if h.Fall == 0 {
		v.fault(src.key("fall"), "write 1 or more", "no probe would take a target out")
	}
}

// balances reports whether it is a way to balance (upstream.ParseBalance, which knows more about each).
func balances(s string) bool {
	if rest, ok := strings.CutPrefix(s, "hash:header:"); ok {
		return isToken(rest)
	}
	if rest, ok := strings.CutPrefix(s, "hash:cookie:"); ok {
		return isToken(rest)
	}
	return slices.Contains([]string{"p2c", "round_robin", "least_conn", "first", "hash:ip"}, s)
}

// isToken reports whether s is a name as fields and cookies have them (RFC 9110 §5.6.2).
func isToken(s string) bool {
	return regexp.MustCompile(`^[!#$%&'*+.^_\x60|~0-9A-Za-z-]+$`).MatchString(s)
}
