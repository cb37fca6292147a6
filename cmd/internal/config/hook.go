package config

import (
	"net/url"
	"strings"
)

// Hook is a URL to post to, or a reference to one ("env:NAME", "file:/path"): such URLs often hold a token. It shows no more of a URL than its host.
type Hook struct{ ref string }

func parseHook(s string) (Hook, error) {
	if s == "" {
		return Hook{}, nil
	}
	if strings.HasPrefix(s, "env:") || strings.HasPrefix(s, "file:") {
		_, err := parseSecret(s)
		return Hook{s}, err
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return Hook{}, badValue(`write "https://host/path", "env:NAME" or "file:/path"`, "this is no URL to post to") // not shown: it may hold a token
	}
	return Hook{s}, nil
}

// Resolve returns the URL; empty if there is none. Errors name the reference only.
func (h Hook) Resolve() (string, error) {
	if strings.HasPrefix(h.ref, "http:") || strings.HasPrefix(h.ref, "https:") {
		return h.ref, nil
	}
	return Secret(h).Resolve()
}

// String returns the reference, or the URL without what follows its host.
func (h Hook) String() string {
	u, err := url.Parse(h.ref)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return h.ref
	}
	return u.Scheme + "://" + u.Host + "/…"
}
