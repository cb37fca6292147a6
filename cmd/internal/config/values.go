package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A valueError says what is wrong with one value, and what to write instead.
type valueError struct{ problem, hint string }

func (e *valueError) Error() string { return e.problem }

// hintOf is the hint of an error of a parser here; they return nothing wrapped.
func hintOf(err error) string {
	if e, ok := err.(*valueError); ok {
		return e.hint
	}
	return ""
}

func badValue(hint, format string, args ...any) error {
	return &valueError{problem: fmt.Sprintf(format, args...), hint: hint}
}

// Address is a host:port to listen on; the host may be empty.
type Address string

func parseAddress(s string) (Address, error) {
	if s == "" || strings.HasPrefix(s, "fd:") || strings.HasPrefix(s, "unix:///") { // "fd:web" is a systemd socket
		return Address(s), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", badValue(`write ":443" or "127.0.0.1:443"`, "%q is no address to listen on", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", badValue(`a port is a number from 0 to 65535`, "%q has no valid port", s)
	}
	if _, err := netip.ParseAddr(host); host != "" && host != "localhost" && err != nil {
		return "", badValue("give the address, not a name", "%q: %q is no IP address", s, host)
	}
	return Address(s), nil
}

// loopback reports whether only this host can reach the address.
func (a Address) loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Size is a number of bytes, written "64KiB", "10MiB" or "0".
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func parseSize(s string) (Size, error) {
	const hint = `write "64KiB", "10MiB" or "0"`
	if s == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || int64(n) > math.MaxInt64/u.bytes {
			break
		}
		return Size(int64(n) * u.bytes), nil
	}
	return 0, badValue(hint, "%q is no size", s)
}

func (n Size) String() string {
	if n == 0 {
		return "0"
	}
	for _, u := range sizeUnits {
		if int64(n)%u.bytes == 0 {
			return strconv.FormatInt(int64(n)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(n), 10) + "B"
}

// parseDuration reads "30s", "5m", "12h", "7d" and combinations like "1h30m"; every number has a unit. "0s" and "0" are nothing.
func parseDuration(s string) (time.Duration, error) {
	const hint = `write a number with a unit: "30s", "5m", "12h", "7d"`
	if s == "0" {
		return 0, nil
	}
	var total time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, badValue(hint, "%q is no duration", s)
		}
		total, rest = time.Duration(n)*day, after
	}
	if rest == "" && s != "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || rest[0] == '+' || rest[0] == '-' || total+d < 0 {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return 0, badValue(hint, "%q has no unit", s)
		}
		return 0, badValue(hint, "%q is no duration", s)
	}
	return total + d, nil
}

// formatDuration is the inverse of parseDuration, in its shortest form.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if d >= 2*day || d == day {
		fmt.Fprintf(&b, "%dd", d/day)
		d %= day
	}
	s := ""
	if d > 0 {
		s = d.String()
	}
	if trimmed, ok := strings.CutSuffix(s, "m0s"); ok {
		s = trimmed + "m"
	}
	if trimmed, ok := strings.CutSuffix(s, "h0m"); ok {
		s = trimmed + "h"
	}
	return b.String() + s
}

// Rate is a count per time, written "5/s" or "250/3h". The zero Rate, "0", means no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

func parseRate(s string) (Rate, error) {
	const hint = `write a count per time: "5/s", "250/3h"; "0" is no limit`
	if s == "0" {
		return Rate{}, nil
	}
	count, per, ok := strings.Cut(s, "/")
	n, err := strconv.ParseUint(count, 10, 31)
	if !ok || err != nil || n == 0 || per == "" {
		return Rate{}, badValue(hint, "%q is no rate", s)
	}
	if per[0] < '0' || per[0] > '9' {
		per = "1" + per
	}
	d, err := parseDuration(per)
	if err != nil || d <= 0 {
		return Rate{}, badValue(hint, "%q is no rate", s)
	}
	return Rate{Count: int(n), Per: d}, nil
}

// PerSecond returns the rate in events a second; 0 for no limit.
func (r Rate) PerSecond() float64 {
	if r.Per <= 0 {
		return 0
	}
	return float64(r.Count) / r.Per.Seconds()
}

func (r Rate) String() string {
	if r.Per <= 0 {
		return "0"
	}
	per := formatDuration(r.Per)
	if len(per) == 2 && per[0] == '1' {
		per = per[1:]
	}
	return strconv.Itoa(r.Count) + "/" + per
}

// Fraction is a part between 0 and 1, both excluded, written "2/3".
type Fraction struct{ Num, Den int }

func parseFraction(s string) (Fraction, error) {
	const hint = `write a part of the whole: "2/3"`
	num, den, _ := strings.Cut(s, "/")
	n, err1 := strconv.ParseUint(num, 10, 16)
	d, err2 := strconv.ParseUint(den, 10, 16)
	if err1 != nil || err2 != nil {
		return Fraction{}, badValue(hint, "%q is no fraction", s)
	}
	if n == 0 || n >= d {
		return Fraction{}, badValue(hint, "%q is not between 0 and 1", s)
	}
	return Fraction{Num: int(n), Den: int(d)}, nil
}

// Float returns the fraction as a number; 0 for the zero Fraction.
func (f Fraction) Float() float64 {
	if f.Den == 0 {
		return 0
	}
	return float64(f.Num) / float64(f.Den)
}

func (f Fraction) String() string { return strconv.Itoa(f.Num) + "/" + strconv.Itoa(f.Den) }

// Percent is a whole number of hundredths, written "30%".
type Percent int

func parsePercent(s string) (Percent, error) {
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.ParseUint(digits, 10, 7)
	if !ok || err != nil || n > 100 {
		return 0, badValue(`write "0%" to "100%"`, "%q is no percentage", s)
	}
	return Percent(n), nil
}

func (p Percent) String() string { return strconv.Itoa(int(p)) + "%" }

// parsePrefix reads a CIDR. Bits behind the prefix's length are cleared.
func parsePrefix(s string) (netip.Prefix, error) {
	const hint = `write "10.0.0.0/8" or "2001:db8::/32"`
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p.Masked(), nil
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.Prefix{}, badValue(fmt.Sprintf(`for this one address write "%s/%d"`, ip, ip.BitLen()), "%q is an address, not a range", s)
	}
	return netip.Prefix{}, badValue(hint, "%q is no address range in CIDR form", s)
}
