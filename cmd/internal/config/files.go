package config

import (
	"fmt"
	"io"
	"os"
)

// readAtMost refuses what is longer instead of cutting it.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("it is longer than %d bytes", limit)
	}
	return data, err
}

// checkFiles reports the files that are named and cannot be opened. What is in them is the business of those who use them.
func (c *Config) checkFiles() error {
	var faults Faults
	check := func(src *source, path string) {
		if path == "" {
			return
		}
		f, err := os.Open(path)
		if err != nil {
			faults = append(faults, src.fault("open "+path+": "+pathless(err), ""))
			return
		}
		f.Close()
	}
	for i := range c.CAs {
		for j, path := range c.CAs[i].Roots {
			check(c.caSrc(i).key("roots").elem(j), path)
		}
	}
	for _, name := range sortedKeys(c.Upstreams) {
		u := c.Upstreams[name]
		for j, path := range u.TLS.Roots {
			check(c.upstreamSrc(name).key("tls").key("roots").elem(j), path)
		}
		check(c.upstreamSrc(name).key("tls").key("certificate"), u.TLS.Certificate)
		check(c.upstreamSrc(name).key("tls").key("key"), u.TLS.Key)
	}
	for i := range c.Sites {
		check(c.siteSource(i).key("certificate"), c.Sites[i].Certificate)
		check(c.siteSource(i).key("key"), c.Sites[i].Key)
		check(c.siteSource(i).key("auth").key("users_file"), c.Sites[i].Auth.UsersFile)
		for j, r := range c.Sites[i].Routes {
			check(c.siteSource(i).key("route").elem(j).key("auth").key("users_file"), r.Auth.UsersFile)
		}
	}
	for _, name := range sortedKeys(c.ClientAuth) {
		for j, path := range c.ClientAuth[name].CA {
			check(c.src.key("client_auth").key(name).key("ca").elem(j), path)
		}
	}
	check(c.src.key("on_demand").key("names_file"), c.OnDemand.NamesFile)
	return faults.orNil()
}
