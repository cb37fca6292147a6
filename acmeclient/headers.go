package acmeclient

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds what a Retry-After may say before its scope's own bound is applied: a year, so that adding it to a time cannot overflow.
const maxRetryAfter = 365 * 24 * time.Hour

// retryAfter reads a Retry-After field (RFC 9110 §10.2.3: seconds, or an HTTP date). It reports false for an absent or unreadable one. A date in
// the past and zero seconds are one second, so that no loop over the answer can become hot.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	if allDigits(v) {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter, true // more digits than an int64 holds is just very late
		}
		return max(time.Duration(seconds)*time.Second, time.Second), true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(max(t.Sub(now), time.Second), maxRetryAfter), true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// maxLinks bounds how many links of one answer are looked at.
const maxLinks = 64

// links returns the targets of the Link fields with the relation rel, resolved against base (RFC 8288 §3). It reads what CAs really send: several
// links in one field or in several fields, rel with and without quotes, several relations in one rel.
func links(h http.Header, rel string, base *url.URL) []string {
	var found []string
	for _, field := range h.Values("Link") {
		for range maxLinks {
			open := strings.IndexByte(field, '<')
			if open < 0 {
				break
			}
			end := strings.IndexByte(field[open:], '>')
			if end < 0 {
				break
			}
			target := field[open+1 : open+end]
			var params string
			params, field = linkParams(field[open+end+1:])
			if !hasRel(params, rel) {
				continue
			}
			if abs, err := resolve(base, target); err == nil {
				found = append(found, abs)
			}
		}
	}
	return found
}

// linkParams cuts the parameters of one link from s: up to the comma that begins the next link, commas within quotes aside.
func linkParams(s string) (params, rest string) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// hasRel reports whether the parameters have the relation among their rel values, without regard to case (RFC 8288 §2.1.1).
func hasRel(params, rel string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(param), "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for r := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(r, rel) {
				return true
			}
		}
	}
	return false
}

// resolve returns ref as an absolute URL; some CAs send relative ones. An empty ref is an error.
func resolve(base *url.URL, ref string) (string, error) {
	u, err := url.Parse(ref)
	if err != nil {
		return "", err
	}
	if ref == "" || base == nil && !u.IsAbs() {
		return "", errNoURL
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	return u.String(), nil
}
