package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"gatelodge/proxy/hostname"
)

// view says where a name leads, as this machine's resolver sees it, to be kept beside what a CA said of it; nothing if issue.preflight is off.
func (p *program) view(ctx context.Context, name string) string {
	if p.cfg.Load().Issue.Preflight == "off" || hostname.IsIP(name) || strings.HasPrefix(name, "*.") {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return fmt.Sprintf("its addresses cannot be looked up: %v", err)
	}
	var all []string
	for _, a := range addrs {
		all = append(all, a.Unmap().String())
	}
	return "it has the addresses " + strings.Join(all, ", ")
}
