package devca

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// ErrNotLoopback: an address leads, or may lead, off this machine. The CA neither listens nor connects there.
var ErrNotLoopback = errors.New("not a loopback address: devca listens on and connects to this machine only")

// resolveLoopback turns host:port into an address with a literal IP. A host name is accepted if all its addresses are loopback ones.
func resolveLoopback(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("read address %q: %w", addr, err)
	}
	if host == "" {
		return "", fmt.Errorf("%q has no host and so means every interface: %w", addr, ErrNotLoopback)
	}
	ips, err := lookupIPs(host)
	if err != nil {
		return "", err
	}
	for _, ip := range ips {
		if !ip.Unmap().IsLoopback() {
			return "", fmt.Errorf("%q is %v: %w", addr, ip, ErrNotLoopback)
		}
	}
	return net.JoinHostPort(ips[0].Unmap().String(), port), nil
}

// lookupIPs answers for localhost itself: it is 127.0.0.1 on every machine, also on one without a hosts file.
func lookupIPs(host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if host == "localhost" {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), validationTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	return ips, nil
}

// dialLoopback connects, and looks once more at the address that the kernel is about to use: a name may have changed since it was checked.
func dialLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !ap.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("connect to %s: %w", address, ErrNotLoopback)
		}
		return nil
	}}
	return d.DialContext(ctx, network, addr)
}
