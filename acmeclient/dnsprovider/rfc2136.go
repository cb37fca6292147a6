package dnsprovider

import (
	"encoding/base64"
	"net"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/rfc2136"
	"github.com/miekg/dns"
)

// newRFC2136 writes by dynamic updates (RFC 2136) that are signed with a TSIG key (RFC 8945).
func newRFC2136(s *settings) certmagic.DNSProvider {
	return &rfc2136.Provider{
		Server:  s.server(),
		KeyName: strings.ToLower(s.text("key_name")), // the library finds keys by their canonical name
		KeyAlg:  s.keyAlgorithm(),
		Key:     s.tsigKey(),
	}
}

// server returns "host:port".
func (s *settings) server() string {
	server := s.text("server")
	if server == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = strings.Trim(server, "[]"), "53"
	}
	if host == "" || port == "" || strings.ContainsAny(host, "/ []") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		s.fault(`server is not "host" or "host:port"`)
	}
	return net.JoinHostPort(host, port)
}

func (s *settings) keyAlgorithm() string {
	algorithms := []string{dns.HmacSHA256, dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA384, dns.HmacSHA512}
	alg := dns.CanonicalName(s.textOr("key_alg", dns.HmacSHA256))
	if !slices.Contains(algorithms, alg) {
		s.fault("key_alg: hmac-sha256, hmac-sha1, hmac-sha224, hmac-sha384 and hmac-sha512 are supported")
	}
	return alg
}

func (s *settings) tsigKey() string {
	key := s.secret("key")
	if _, err := base64.StdEncoding.DecodeString(key); err != nil {
		s.fault("key: the secret is not base64, as tsig-keygen writes it")
	}
	return key
}
