package upstream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// stickyToken is the value of the sticky cookie that stands for an endpoint: it says nothing about the address, and is the same on all nodes.
func stickyToken(cfg Config, label string) string {
	if cfg.Sticky == "" {
		return ""
	}
	key := cfg.StickyKey
	if len(key) == 0 {
		key = []byte("gatelodge sticky cookie") // opaque, but no secret: see Config.StickyKey
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(cfg.Sticky + "\x00" + label))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:15])
}

// stuck is the endpoint that the request's cookie names, if it can have the request; nil otherwise. Its weight does not matter: a target of weight 0 keeps
// the clients that it has.
func (c *choice) stuck() *endpoint {
	if c.p.cfg.Sticky == "" {
		return nil
	}
	value := cookie(c.j.r.Header["Cookie"], c.p.cfg.Sticky)
	if value == "" {
		return nil
	}
	for _, e := range c.all {
		if e.token == value && c.able(e) && e.claim(c.j) {
			return e
		}
	}
	return nil
}

// stick gives the client a cookie for the endpoint that answered, unless it has it already.
func (p *Pool) stick(j *journey, e *endpoint, res *http.Response) {
	if p.cfg.Sticky == "" || cookie(j.r.Header["Cookie"], p.cfg.Sticky) == e.token {
		return
	}
	c := p.cfg.Sticky + "=" + e.token + "; Path=/; HttpOnly; SameSite=Lax"
	if j.call.Secure {
		c += "; Secure" // over plain HTTP no browser would keep it
	}
	res.Header["Set-Cookie"] = append(res.Header["Set-Cookie"], c)
}

// cookie returns the value of the first cookie of that name (RFC 6265 §4.2.1), empty if there is none.
func cookie(fields []string, name string) string {
	for _, f := range fields {
		for pair := range strings.SplitSeq(f, ";") {
			k, v, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if k == name {
				return v
			}
		}
	}
	return ""
}
