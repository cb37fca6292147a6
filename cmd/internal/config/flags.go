package config

import (
	"fmt"
	"strings"
)

// Flags are what `gatelodge run --host HOST --to URL` says instead of a file.
type Flags struct {
	Hosts []string

	// To is a URL; without scheme it is http, without host this host: "127.0.0.1:3000", ":3000" and "3000" will do.
	To string
}

// FromFlags returns a configuration with one site and the defaults for the rest. Its error is of type [Faults], without places.
func FromFlags(fl Flags) (*Config, error) {
	c := Default()
	var s Site
	s.setDefaults()
	v := &validator{c: c}
	for _, h := range fl.Hosts {
		host, err := canonicalHost(h)
		if err != nil {
			v.flagFault("--host", err)
			continue
		}
		s.Hosts = append(s.Hosts, host)
	}
	to := fl.To
	if to != "" && !strings.Contains(to, "://") {
		to = "http://" + missingScheme(to)
	}
	target, err := parseTarget(to)
	switch {
	case err != nil:
		v.flagFault("--to", err)
	case target.Scheme != "http" && target.Scheme != "https":
		v.flagFault("--to", badValue("write --to 127.0.0.1:3000", "this is no http:// or https:// URL"))
	}
	if len(fl.Hosts) == 0 {
		v.flagFault("--host", badValue("write --host example.com", "which host?"))
	}
	if len(v.faults) > 0 {
		return nil, v.faults
	}
	s.To = target
	c.Sites = []Site{s}
	v.all()
	if len(v.faults) > 0 {
		return nil, v.faults
	}
	c.warnings = v.warnings
	return c, nil
}

func (v *validator) flagFault(flag string, err error) {
	f := Fault{Problem: fmt.Sprintf("%s: %v", flag, err)}
	if e, ok := err.(*valueError); ok { // our own parsers return nothing wrapped
		f.Hint = e.hint
	}
	v.faults = append(v.faults, f)
}
