package dnsprovider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/acmedns"
	"github.com/libdns/libdns"
)

// acmeDNS writes to an acme-dns server. An account there has one name, with room for two values, and names lead to it by CNAME. The API cannot remove a
// value: the next but one takes its place.
type acmeDNS struct {
	// accounts are by subdomain in lower case.
	accounts map[string]*acmedns.Provider
}

func newACMEDNS(s *settings) certmagic.DNSProvider {
	p := &acmeDNS{accounts: map[string]*acmedns.Provider{}}
	if s.has("accounts") {
		p.load(s)
		return p
	}
	account := &acmedns.Provider{ServerURL: s.text("server"), Username: s.text("username"), Password: s.secret("password"), Subdomain: s.text("subdomain")}
	s.api("server", account)
	p.add(account)
	return p
}

// load reads accounts in the JSON of acme-dns-client: one for each domain, with the server's URL.
func (p *acmeDNS) load(s *settings) {
	var all map[string]acmedns.DomainConfig
	if err := json.Unmarshal([]byte(s.secret("accounts")), &all); err != nil || len(all) == 0 {
		s.fault("accounts: they are not the JSON that acme-dns-client keeps")
		return
	}
	for domain, c := range all {
		if c.Username == "" || c.Password == "" || c.Subdomain == "" {
			s.fault("accounts: %q lacks username, password or subdomain", domain)
			continue
		}
		account := &acmedns.Provider{ServerURL: c.ServerURL, Username: c.Username, Password: c.Password, Subdomain: c.Subdomain}
		s.api(fmt.Sprintf("accounts: %q: server_url", domain), account)
		p.add(account)
	}
}

func (p *acmeDNS) add(account *acmedns.Provider) {
	p.accounts[strings.ToLower(account.Subdomain)] = account
}

// api checks the account's server: https, or http on loopback. The library does not.
func (s *settings) api(key string, account *acmedns.Provider) {
	u, err := url.Parse(account.ServerURL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		s.fault("%s is not an https URL", key)
	}
	account.ServerURL = strings.TrimSuffix(account.ServerURL, "/")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}

// AppendRecords refuses names that are no account's: the server would put the value where the CA does not look.
func (p *acmeDNS) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	var done []libdns.Record
	for _, rec := range recs {
		fqdn := libdns.AbsoluteName(rec.RR().Name, zone)
		label, _, _ := strings.Cut(strings.ToLower(fqdn), ".")
		account := p.accounts[label]
		if account == nil {
			return done, fmt.Errorf("the _acme-challenge CNAME leads to %s, which is the name of no account", fqdn)
		}
		made, err := account.AppendRecords(ctx, zone, []libdns.Record{rec})
		done = append(done, made...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// DeleteRecords does nothing: the API has no such thing.
func (p *acmeDNS) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, nil
}
