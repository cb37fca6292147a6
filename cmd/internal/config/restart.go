package config

import (
	"reflect"
	"slices"
)

// RestartOnly names the keys in which the two configurations differ though only a start can apply them, in byte order.
func (c *Config) RestartOnly(o *Config) []string {
	var keys []string
	for key, same := range map[string]bool{
		"listen.http":     slices.Equal(c.Listen.HTTP, o.Listen.HTTP),
		"listen.https":    slices.Equal(c.Listen.HTTPS, o.Listen.HTTPS),
		"listen.limits":   c.Listen.Limits.connection() == o.Listen.Limits.connection(),
		"tls.min_version": c.TLS.MinVersion == o.TLS.MinVersion,
		"internal_ca":     reflect.DeepEqual(c.InternalCA, o.InternalCA),
		"storage":         reflect.DeepEqual(c.Storage, o.Storage),
		"admin":           reflect.DeepEqual(c.Admin, o.Admin),
		"log":             reflect.DeepEqual(c.Log, o.Log),
		"process":         c.Process == o.Process,
	} {
		if !same {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// connection are the limits that listeners are built with; unknown_names_per_ip is not among them.
func (l Limits) connection() Limits {
	l.UnknownNamesPerIP = Rate{}
	return l
}
