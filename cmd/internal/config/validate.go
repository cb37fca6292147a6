package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"gatelodge/proxy/hostname"
)

// A validator looks at what single values cannot show: what must not be empty, what contradicts, what refers to something that is not there.
type validator struct {
	c        *Config
	faults   Faults
	warnings Faults

	// unread are the places of values that could not be read. They are not judged further.
	unread map[string]bool
}

func (v *validator) fault(src *source, hint, format string, args ...any) {
	f := src.fault(fmt.Sprintf(format, args...), hint)
	if v.unread[f.Place()] || src.slipped() {
		return
	}
	v.faults = append(v.faults, f)
}

func (v *validator) warn(src *source, hint, format string, args ...any) {
	v.warnings = append(v.warnings, src.fault(fmt.Sprintf(format, args...), hint))
}

func (v *validator) all() {
	v.unread = map[string]bool{}
	for i := range v.faults {
		v.unread[v.faults[i].Place()] = true
	}
	if v.c.Version != 1 {
		v.fault(v.c.src.key("version"), "write 1 or leave it out", "version %d of the configuration is unknown", v.c.Version)
	}
	v.listen()
	v.tls()
	v.cas()
	v.issue()
	v.dns()
	v.onDemand()
	v.upstreams()
	v.sites()
	v.trace()
	v.process()
}

func (v *validator) listen() {
	l, src := &v.c.Listen, v.c.src.key("listen")
	if len(l.HTTP) == 0 && len(l.HTTPS) == 0 {
		v.fault(src, `leave one of them out, or write https = [":443"]`, "http and https are both off: nothing to listen on")
	}
	taken := map[Address]string{}
	v.addresses(taken, src.key("http"), l.HTTP)
	v.addresses(taken, src.key("https"), l.HTTPS)
	if len(l.HTTPS) == 0 && len(l.HTTP) > 0 && l.Redirect {
		v.warn(src, "write redirect = false to serve sites over plain HTTP", "redirects go to https, which is off")
	}
	if len(l.HTTP) == 0 && slices.Equal(v.c.Issue.Challenges, []string{"http-01"}) {
		v.warn(src.key("http"), `add "tls-alpn-01" to issue.challenges or listen on :80`, "http is off, but http-01 is the only challenge")
	}
	if l.ProxyProtocol != "off" && len(l.ProxyProtocolFrom) == 0 {
		v.fault(src.key("proxy_protocol"), `write proxy_protocol_from = ["10.0.0.0/8"]`, "without the networks that may send it, any client could claim any address")
	}
	limits, at := &l.Limits, src.key("limits")
	v.positive(at.key("handshake_timeout"), limits.HandshakeTimeout)
	v.positive(at.key("header_timeout"), limits.HeaderTimeout)
	v.positive(at.key("idle_timeout"), limits.IdleTimeout)
	if n := limits.HeaderBytes; n < 8<<10 || n > 16<<20 {
		v.fault(at.key("header_bytes"), `write "8KiB" to "16MiB"`, "%s is out of range", n)
	}
}

func (v *validator) addresses(taken map[Address]string, src *source, list []Address) {
	for i, a := range list {
		at := src.elem(i)
		if a == "" {
			v.fault(at, "leave it out", "the address is empty")
			continue
		}
		if strings.HasSuffix(string(a), ":0") {
			continue
		}
		if first, ok := taken[a]; ok {
			v.fault(at, "", "%q is already at %s", a, first)
			continue
		}
		taken[a] = at.place()
	}
}

// positive refuses a time of nothing: there is no "without limit" at the edge.
func (v *validator) positive(src *source, d time.Duration) {
	if d <= 0 {
		v.fault(src, `write a time such as "10s"`, "must be more than nothing")
	}
}

func (v *validator) tls() {
	name := v.c.TLS.DefaultName
	src := v.c.src.key("tls").key("default_name")
	if strings.Contains(name, "*") {
		v.fault(src, "write one of the hosts", "%q is a pattern, not a name", name)
	} else if name != "" && !v.claimed(name) {
		v.fault(src, "write one of the hosts", "no [[site]] has the host %q", name)
	}
	if v.c.TLS.UnknownName == "default" && name == "" {
		v.fault(v.c.src.key("tls").key("unknown_name"), `write default_name = "example.com" beside it`, "there is no default certificate to serve")
	}
	for _, policy := range sortedKeys(v.c.ClientAuth) {
		if at := v.c.src.key("client_auth").key(policy); len(v.c.ClientAuth[policy].CA) == 0 {
			v.fault(at, `write ca = ["/etc/gatelodge/clients.pem"]`, "[client_auth.%s] has no CA whose certificates it accepts", policy)
		}
	}
	if len(v.c.TLS.Groups) == 0 {
		v.fault(v.c.src.key("tls").key("groups"), "leave it out", "without a group there is no handshake")
	}
}

// claimed reports whether a site has the name, or a wildcard for it.
func (v *validator) claimed(name string) bool {
	wildcard, _ := hostname.Wildcard(name)
	return slices.ContainsFunc(v.c.Sites, func(s Site) bool {
		return slices.ContainsFunc(s.Hosts, func(h string) bool { return h == name || h == wildcard || h == "*" })
	})
}

func (v *validator) cas() {
	seen := map[string]*source{}
	for i := range v.c.CAs {
		ca, src := &v.c.CAs[i], v.c.caSrc(i)
		v.caName(ca.Name, src.key("name"), seen)
		v.directory(ca.Directory, src.key("directory"))
		if ca.DirectoryV1 != "" {
			v.directory(ca.DirectoryV1, src.key("directory_v1"))
		}
		if (ca.EAB.KID.ref == "") != (ca.EAB.HMAC.ref == "") {
			v.fault(src.key("eab"), `write { kid = "env:NAME", hmac = "env:NAME" }`, "an external account binding needs both kid and hmac")
		}
		for j, contact := range ca.Contact {
			if u, err := url.Parse(contact); err != nil || u.Scheme == "" {
				hint := ""
				if strings.Contains(contact, "@") {
					hint = fmt.Sprintf("write %q", "mailto:"+contact)
				}
				v.fault(src.key("contact").elem(j), hint, "%q is no contact URL", contact)
			}
		}
		if ca.HTTPPort < 1 || ca.HTTPPort > 65535 {
			v.fault(src.key("http_port"), "leave it out: it is 80 at all public CAs", "%d is no port", ca.HTTPPort)
		}
		if !ca.AgreeTerms {
			v.warn(src.key("agree_terms"), "write true once you have read them", "without agreeing to its terms of service %q makes no account", ca.Name)
		}
	}
	if d := v.c.InternalCA.Lifetime; d < 10*time.Second {
		v.fault(v.c.src.key("internal_ca").key("lifetime"), `write a time such as "7d"`, "must be 10s at least")
	}
}

// caNames is what can be a part of an object's name in every store.
var caNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (v *validator) caName(name string, at *source, seen map[string]*source) {
	const hint = "give each [[ca]] a name of its own: it names the stored certificates"
	switch {
	case name == "":
		v.fault(at, hint, "this [[ca]] has no name")
	case name == InternalCAName:
		v.fault(at, hint, "%q is the name of the internal CA", name)
	case !caNames.MatchString(name):
		v.fault(at, "use up to 63 letters, digits, -, _ and .", "%q cannot name stored certificates", clip(name))
	case seen[name] != nil:
		v.fault(at, hint, "a [[ca]] named %q is already at %s", name, seen[name].place())
	default:
		seen[name] = at
	}
}

func (v *validator) directory(directory string, at *source) {
	if directory == "" {
		v.fault(at, `write directory = "https://..."`, "the CA has no directory")
		return
	}
	u, err := url.Parse(directory)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		v.fault(at, `write "https://HOST/PATH"`, "the directory is no URL")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopbackHost(u.Hostname())):
		v.fault(at, "use https://", "a CA's directory over %q can be read and changed by anybody", u.Scheme)
	}
}

func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (v *validator) issue() {
	src, is := v.c.src.key("issue"), &v.c.Issue
	if len(is.Challenges) == 0 {
		v.fault(src.key("challenges"), `leave it out or write ["tls-alpn-01", "http-01"]`, "no challenge can be answered")
	}
	for i, ch := range is.Challenges {
		if slices.Contains(is.Challenges[:i], ch) {
			v.fault(src.key("challenges").elem(i), "", "%q is listed twice", ch)
		}
		if ch == "dns-01" && len(v.c.DNS) == 0 {
			v.fault(src.key("challenges").elem(i), "add a [dns.NAME] with provider and zones", "dns-01 needs a DNS provider, and none is configured")
		}
	}
	for i, r := range is.Resolvers {
		if host, port, err := net.SplitHostPort(r); err != nil || host == "" || port == "" {
			v.fault(src.key("resolvers").elem(i), `write "192.0.2.53:53"`, "%q is no address of a resolver", r)
		}
	}
	if is.Preflight == "require" && len(v.c.Listen.HTTP) == 0 && slices.Contains(is.Challenges, "http-01") {
		v.warn(src.key("preflight"), `take "http-01" out of issue.challenges, or listen on :80`, "names are refused whose challenge URL we do not answer, and listen.http is off")
	}
	if len(is.Keys) == 0 {
		v.fault(src.key("keys"), "leave it out", "no kind of key is left")
	}
	if len(is.Backoff) == 0 {
		v.fault(src.key("backoff"), "leave it out", "without pauses a failing name would be tried forever at once")
	}
	for i, d := range is.Backoff {
		if d < time.Second {
			v.fault(src.key("backoff").elem(i), `write "1s" at least`, "a pause of %s would use up the CA's limits at once", formatDuration(d))
		} else if i > 0 && d < is.Backoff[i-1] {
			v.warn(src.key("backoff").elem(i), "", "the pause is shorter than the one before")
		}
	}
	if is.Budget.InFlight < 1 {
		v.fault(src.key("budget").key("in_flight"), "write 1 at least", "no certificate could be ordered")
	}
	if b := is.Budget; b.NewOrders.Count > 0 && b.NewOrders.Count*int(b.ReserveForRenewals)/100 >= b.NewOrders.Count {
		v.fault(src.key("budget").key("reserve_for_renewals"), `write less, like "30%"`, "the reserve leaves no order for new names")
	}
}

// dns checks what is the same for all providers; their own keys are checked by whoever builds them (`gatelodge check` does).
func (v *validator) dns() {
	for _, name := range sortedKeys(v.c.DNS) {
		d, src := v.c.DNS[name], v.c.src.key("dns").key(name)
		if d.Provider == "" {
			v.fault(src, `write provider = "rfc2136"`, "[dns.%s] has no provider", name)
		}
		if len(d.Zones) == 0 {
			v.fault(src, `write zones = ["example.org"]`, "[dns.%s] has no zones", name)
		}
	}
}

func (v *validator) onDemand() {
	src, od := v.c.src.key("on_demand"), &v.c.OnDemand
	v.positive(src.key("ask_timeout"), od.AskTimeout)
	v.positive(src.key("max_wait"), od.MaxWait)
	v.positive(src.key("allow_ttl"), od.AllowTTL)
	v.positive(src.key("deny_ttl"), od.DenyTTL)
	switch {
	case od.Enabled && od.Ask == "" && od.NamesFile == "":
		v.fault(src.key("enabled"), `set ask = "http://..." or names_file = "..."`,
			"on-demand certificates without a gate: anybody could make us order a certificate for any name")
	case od.Ask != "" && od.NamesFile != "":
		v.fault(src.key("names_file"), "keep one of them", "there are two gates: ask and names_file")
	case !od.Enabled && (od.Ask != "" || od.NamesFile != ""):
		v.warn(src, "write enabled = true", "there is a gate, but on-demand certificates are off")
	}
	v.askURL(src.key("ask"), od.Ask)
	if od.Enabled && !slices.ContainsFunc(v.c.Sites, func(s Site) bool { return s.OnDemand }) {
		v.warn(src.key("enabled"), "write on_demand = true in a [[site]]", "no [[site]] uses on-demand certificates")
	}
}

func (v *validator) askURL(src *source, ask string) {
	if ask == "" {
		return
	}
	const hint = `write "http://127.0.0.1:9000/ask"`
	u, err := url.Parse(ask)
	switch {
	case err != nil:
		v.fault(src, hint, "this is no URL")
	case u.User != nil:
		v.fault(src, hint, "the URL cannot carry a user or password")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		v.fault(src, hint, "%q is no http:// or https:// URL", ask)
	case u.Fragment != "":
		v.fault(src, hint, "%q has a fragment", ask)
	}
}

func (v *validator) process() {
	src := v.c.src
	v.storage()
	if n := v.c.Cache.Memory; n < 1<<20 {
		v.fault(src.key("cache").key("memory"), `write "1MiB" at least`, "%s is too little for certificates", n)
	}
	v.positive(src.key("cache").key("negative"), v.c.Cache.Negative)
	v.adminListen(src.key("admin").key("listen"), v.c.Admin.Listen)
	metrics := v.c.Admin.Metrics
	switch at := src.key("admin").key("metrics"); {
	case metrics == "":
	case !metrics.loopback():
		v.fault(at, `write "127.0.0.1:9180", or "" to turn it off`, "%q: metrics are served on loopback only", metrics)
	case !strings.HasSuffix(string(metrics), ":0") && slices.Contains(slices.Concat(v.c.Listen.HTTP, v.c.Listen.HTTPS), metrics):
		v.fault(at, "give it a port of its own", "%q is also listened on for sites", metrics)
	}
	if ready := v.c.Admin.Ready; ready != "" && !strings.HasSuffix(string(ready), ":0") &&
		slices.Contains(append(slices.Concat(v.c.Listen.HTTP, v.c.Listen.HTTPS), metrics), ready) {
		v.fault(src.key("admin").key("ready"), "give it a port of its own", "%q is also listened on for sites or metrics", ready)
	}
	if access := v.c.Log.Access; access != "stdout" && access != "off" && !strings.HasPrefix(access, "/") {
		v.fault(src.key("log").key("access"), oneOf(access, []string{"stdout", "off", "/path"}), "unknown value %q", access)
	}
}

// maxSocketPath is the room for a path in sockaddr_un, without the byte at its end.
const maxSocketPath = 107

func (v *validator) adminListen(at *source, listen string) {
	if listen == "" {
		return
	}
	path, ok := strings.CutPrefix(listen, "unix://")
	switch {
	case !ok || !strings.HasPrefix(path, "/"):
		v.fault(at, `write "unix:///run/gatelodge/admin.sock"`, "%q has no absolute path", listen)
	case len(path) > maxSocketPath:
		v.fault(at, fmt.Sprintf("use a path of up to %d bytes", maxSocketPath), "the path of the socket is too long")
	}
}
