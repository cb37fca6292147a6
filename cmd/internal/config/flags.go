package config

import (
	"fmt"
	"strings"
)

// ForHost returns the configuration of `gatelodge run --host HOST --to URL`: one site, and the defaults for the rest. A URL without scheme is http, one
// without host is this host: "127.0.0.1:3000", ":3000" and "3000" will do. The error is of type [Faults], without places.
func ForHost(host, to string) (*Config, error) {
	c := Default()
	v := &validator{c: c}
	canonical, err := canonicalHost(host)
	if err != nil {
		v.flagFault("--host", err)
	}
	if to != "" && !strings.Contains(to, "://") {
		to = "http://" + missingScheme(to)
	}
	target, err := parseTarget(to)
	switch {
	case err != nil:
		v.flagFault("--to", err)
	case target.Scheme != "http" && target.Scheme != "https":
		v.flagFault("--to", badValue("write --to 127.0.0.1:3000", "%q is no http:// or https:// URL", to))
	}
	if len(v.faults) > 0 {
		return nil, v.faults
	}
	s := Site{Hosts: []string{canonical}, To: target}
	s.setDefaults()
	c.Sites = []Site{s}
	v.all()
	c.warnings = v.warnings
	if err := v.faults.orNil(); err != nil {
		return nil, err
	}
	return c, nil
}

func (v *validator) flagFault(flag string, err error) {
	v.faults = append(v.faults, Fault{Problem: fmt.Sprintf("%s: %v", flag, err), Hint: hintOf(err)})
}
