package acmeclient

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Scopes of a Problem, narrowest first: whom the refusal, or its Retry-After, concerns.
const (
	ScopeName    = "name"              // this name, or this set of names
	ScopeDomain  = "registered-domain" // all names below one registered domain
	ScopeAccount = "account"           // all names that the account orders
	ScopeAddress = "address"           // all requests from this network address
	ScopeCA      = "ca"                // the CA itself: network, 5xx, hang, not usable as configured
)

var (
	errNoURL = errors.New("no URL")

	// ErrClosed is returned by a Client that was closed.
	ErrClosed = errors.New("acmeclient: the client is closed")
)

// Problem is why the CA did not do what was asked: what it said, whom it concerns, when to try again, what a person can do about it.
//
// Errors of this package that are no Problem come from elsewhere: the store, the caller's own context, a request that makes no sense.
type Problem struct {
	CA          string       // Config.Name
	Op          string       // what was being done: "new order", "validate http-01"
	Type        string       // problem type, "urn:ietf:params:acme:error:caa"; empty if there was no problem document
	Detail      string       // the CA's words
	Instance    string       // URL that the CA gives for this occurrence, for a person
	Status      int          // HTTP status; 0 without an answer, and in problems of challenges and orders
	Subproblems []Subproblem // one per identifier concerned
	Identifier  string       // the name or address concerned, if it is a single one
	Advice      string       // one sentence: what to do
	Err         error        // the cause, if it was not the CA's answer: network, TLS, a garbled answer

	scope   string
	subject string // what the scope is about: the registered domain, the name, the set
	retryAt time.Time

	elsewhere  bool // see Elsewhere
	paused     bool // see Paused
	remembered bool // from the memory of limits: the CA was not asked
	retried    bool // after the quick tries
	own        bool // see Own
}

// Error says what failed, in the CA's words, and what to do.
func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s", p.Op, p.CA)
	if p.Identifier != "" {
		fmt.Fprintf(&b, " for %s", p.Identifier)
	}
	b.WriteString(":")
	if reason := p.reason(); reason != "" {
		b.WriteString(" " + reason)
	}
	if p.Advice != "" {
		fmt.Fprintf(&b, " (%s)", p.Advice)
	}
	return b.String()
}

// reason is what the CA said, or why it said nothing.
func (p *Problem) reason() string {
	var parts []string
	if p.Status != 0 {
		parts = append(parts, fmt.Sprintf("status %d", p.Status))
	}
	if k := kind(p.Type); k != "" {
		parts = append(parts, k)
	} else if p.Type != "" {
		parts = append(parts, p.Type)
	}
	if p.Detail != "" {
		parts = append(parts, p.Detail)
	}
	if p.Err != nil {
		parts = append(parts, p.Err.Error())
	}
	return strings.Join(parts, " ")
}

// Unwrap returns the cause, if there is one beside the CA's answer.
func (p *Problem) Unwrap() error { return p.Err }

// Scope is one of the Scope constants.
func (p *Problem) Scope() string { return p.scope }

// RetryAt is the earliest time of the next attempt within the scope; zero means that the CA did not say.
func (p *Problem) RetryAt() time.Time { return p.retryAt }

// Elsewhere reports whether another CA may well do what this one refused, for good and before anything was tried: it lacks something. The next CA should be asked at
// once; this one is not out of order.
func (p *Problem) Elsewhere() bool { return p.elsewhere }

// RefusesKey reports whether the CA refuses the certificate's key, or the request that was made with it. Another key may do.
func (p *Problem) RefusesKey() bool {
	k := kind(p.Type)
	return k == "badCSR" || k == "badPublicKey"
}

// Own reports whether it is what we saw ourselves: a preflight did not let the order go to the CA.
func (p *Problem) Own() bool { return p.own }

// Paused reports whether the CA takes no more orders for the name until a person has visited the page that Advice names.
func (p *Problem) Paused() bool { return p.paused }

const adviceCAA = "the CAA records of the name do not allow this CA; change them or use another CA"

// Bounds of what a CA's Retry-After can make us wait before we ask again.
const (
	maxLimitWait  = 7 * 24 * time.Hour // rate limits: Let's Encrypt's longest refills one in 34 h
	maxOutageWait = time.Hour          // 503: maintenance that says "tomorrow" is asked about every hour
	pausedWait    = 24 * time.Hour     // paused names need a person; see whether that has happened once a day
	actionPause   = 10 * time.Minute   // accounts that need a person, who may be at it
	limitPause    = time.Minute        // limits of account or address that do not say until when; names have a back-off of their own
)

// requestProblem makes a Problem of an answer with an error status, or of an operation that got no usable answer at all.
func requestProblem(ca, op string, ex *exchange, cause error, now time.Time) *Problem {
	p := &Problem{CA: ca, Op: op, Status: ex.status, scope: ScopeCA}
	wait, hasWait := retryAfter(ex.header, now)
	switch {
	case ex.status == 0 || ex.status < 400: // no answer, or one that could not be read
		p.Err, p.Status = cause, 0
		p.Advice = networkAdvice(cause)
		return p
	case !ex.isProblem:
		p.Detail = http.StatusText(ex.status) + ", without a problem document"
	default:
		p.Type, p.Detail, p.Instance, p.Subproblems = ex.problem.typ, ex.problem.detail, ex.problem.instance, ex.problem.subproblems
	}
	if len(p.Subproblems) > 0 {
		p.Identifier = p.Subproblems[0].Identifier
	}
	p.judgeRequest(ex, now)
	if kind(p.Type) == "rateLimited" || ex.status == http.StatusTooManyRequests {
		p.judgeLimit(ex, now)
	}
	if hasWait && p.retryAt.IsZero() {
		bound := maxLimitWait
		if p.scope == ScopeCA || ex.status >= 500 {
			bound = maxOutageWait
		}
		p.retryAt = now.Add(min(wait, bound))
	}
	return p
}

// judgeRequest decides scope and advice of a refused request, by problem type first and by HTTP status where the type is unknown (facts 5.7).
func (p *Problem) judgeRequest(ex *exchange, now time.Time) {
	switch kind(p.Type) {
	case "badNonce":
		p.scope, p.Advice = ScopeCA, "the CA refuses its own nonces; it is tried again"
	case "serverInternal":
		p.scope, p.Advice = ScopeCA, "the CA has a fault of its own; it is tried again"
	case "rejectedIdentifier", "unsupportedIdentifier":
		p.scope, p.Advice = ScopeName, "this CA does not issue for the name; use another CA for it or remove it"
	case "caa":
		p.scope, p.Advice = ScopeName, adviceCAA
	case "connection", "dns", "tls", "incorrectResponse":
		p.scope, p.Advice = ScopeName, validationAdvice(kind(p.Type), "", p.Identifier)
	case "badCSR", "badPublicKey":
		p.scope, p.Advice = ScopeName, "the CA refuses the certificate's key, or what is asked for it; the next attempt needs a new key"
	case "alreadyReplaced":
		p.scope, p.Advice = ScopeName, "the predecessor was replaced before; the certificate is ordered without naming it"
	case "orderNotReady":
		p.scope, p.Advice = ScopeName, "the CA has not finished its checks; the order is continued"
	case "alreadyRevoked":
		p.scope, p.Advice = ScopeName, "nothing is to be done: the certificate is revoked"
	case "badRevocationReason":
		p.scope, p.Advice = ScopeName, "give another reason: 0, 1, 4 or 5"
	case "invalidProfile":
		p.scope, p.Advice = ScopeCA, "the CA does not offer the configured profile; change it"
	case "accountDoesNotExist":
		p.scope, p.Advice = ScopeAccount, "the CA no longer knows the account; it is registered again with the same key, once an hour at most"
	case "unauthorized":
		p.scope, p.Advice = ScopeAccount, "the CA refuses the account; see whether it was deactivated"
		switch ex.endpoint {
		case endpointFinalize: // what the CA asked of the account, it has asked before; authorizations can end between
			p.scope, p.Advice = ScopeName, "the authorizations have ended meanwhile; the next attempt places a new order"
		case endpointRevoke:
			p.Advice = "the certificate is not the account's; revoke it by its own key, or at the CA that issued it"
		}
	case "externalAccountRequired":
		p.scope, p.Advice, p.retryAt = ScopeCA, adviceBinding, now.Add(actionPause)
	case "userActionRequired":
		p.scope, p.Advice, p.retryAt = ScopeCA, "the CA wants a person to act", now.Add(actionPause)
		if p.Instance != "" {
			p.Advice += ": see " + p.Instance
		}
		if terms := links(ex.header, "terms-of-service", ex.url); len(terms) > 0 {
			p.Advice += "; its terms of service now are " + clean(terms[0])
		}
	case "invalidContact", "unsupportedContact", "invalidEmail":
		p.scope, p.Advice = ScopeAccount, "the CA refuses the contact addresses; correct them in the configuration"
	case "badSignatureAlgorithm":
		p.scope, p.Advice = ScopeAccount, "the CA does not accept the account's key type"
	case "malformed", "compound":
		p.judgeMalformed()
	default:
		p.judgeStatus(ex)
	}
}

// judgeMalformed tells a name that the CA does not like from a request that it does not understand; RFC 8555 has one type for both.
func (p *Problem) judgeMalformed() {
	for _, sub := range p.Subproblems {
		if sub.Identifier != "" {
			p.scope, p.Advice = ScopeName, "this CA does not issue for the name; use another CA for it or remove it"
			return
		}
	}
	lower := strings.ToLower(p.Detail)
	for _, word := range []string{"identifier", "domain name", "cannot issue for", "hostname"} {
		if strings.Contains(lower, word) {
			p.scope, p.Advice = ScopeName, "this CA does not issue for the name; use another CA for it or remove it"
			return
		}
	}
	p.scope, p.Advice = ScopeCA, "the CA does not understand the request; please report this"
	if p.Status == http.StatusNotFound { // Let's Encrypt has no other type for it
		p.Advice = "the CA does not have what it was asked for; it is asked again"
	}
}

// judgeStatus decides where the problem type says nothing: what we do not understand is not held against a name.
func (p *Problem) judgeStatus(ex *exchange) {
	p.scope = ScopeCA
	switch {
	case ex.status == http.StatusTooManyRequests:
		p.Advice = "the CA limits us; it is tried again later"
	case ex.status >= 500:
		p.Advice = "the CA is out of order; it is tried again"
	case ex.status == http.StatusNotFound, ex.status == http.StatusMethodNotAllowed, ex.status == http.StatusGone:
		p.Advice = "the address answers, but not as an ACME server should; check `directory`"
	default:
		p.Advice = "the CA, or a proxy before it, refuses the request"
	}
}

// Let's Encrypt names in quotes what a limit is about; older Boulders wrote it after a colon. The date repeats the Retry-After.
var (
	quotedSubject = regexp.MustCompile(`(?:for|issued for) "([^"]+)"`)
	colonSubject  = regexp.MustCompile(`already issued for: ([^\s:,]+)`)
	retryDate     = regexp.MustCompile(`retry after (\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}) UTC`)
	pageURL       = regexp.MustCompile(`https://[^\s"<>]+`)
)

// judgeLimit finds out whom a 429 concerns, by the texts of Boulder (ratelimits/limiter.go), which other CAs mostly copy.
func (p *Problem) judgeLimit(ex *exchange, now time.Time) {
	lower := strings.ToLower(p.Detail)
	_, hasWait := retryAfter(ex.header, now)
	if m := retryDate.FindStringSubmatch(p.Detail); m != nil && !hasWait {
		if t, err := time.Parse(time.DateTime, m[1]); err == nil {
			p.retryAt = now.Add(min(max(t.Sub(now), time.Second), maxLimitWait))
		}
	}
	switch has := func(s string) bool { return strings.Contains(lower, s) }; {
	case has("temporarily prevented from requesting certificates"), has("/unpause"):
		p.scope, p.retryAt, p.paused = ScopeName, now.Add(pausedWait), true
		p.Advice = "the CA paused this name after many failures; a person has to visit " + pageURL.FindString(p.Detail)
		return
	case has("this ip address"), has("this /48 subnet"), has("/48 ipv6 range"), has("new registrations"):
		p.scope = ScopeAddress
	case has("exact set of"):
		p.scope = ScopeName
	case has("failed authorizations"):
		p.scope, p.subject = ScopeName, firstGroup(quotedSubject, p.Detail)
	case has("too many certificates"):
		p.scope, p.subject = ScopeDomain, firstGroup(quotedSubject, p.Detail)
		if p.subject == "" {
			p.subject = firstGroup(colonSubject, p.Detail)
		}
		if p.subject == "" {
			p.scope = ScopeName // a domain that is not named: all that is known is this request
		}
	case ex.status == http.StatusServiceUnavailable: // Let's Encrypt's requests per second and address
		p.scope = ScopeAddress
	case ex.endpoint == endpointNewNonce || ex.endpoint == endpointDirectory || ex.endpoint == endpointNewAccount:
		p.scope = ScopeAddress
	default:
		p.scope = ScopeAccount
	}
	if !hasWait && p.retryAt.IsZero() && (p.scope == ScopeAccount || p.scope == ScopeAddress) {
		p.retryAt = now.Add(limitPause)
	}
	p.subject = strings.ToLower(p.subject)
	if p.scope == ScopeName && p.Identifier == "" {
		p.Identifier = p.subject
	}
	p.Advice = "the CA's rate limit is reached; it is tried again when the CA allows"
	if help := links(ex.header, "help", ex.url); len(help) > 0 {
		p.Advice += ", see " + help[0]
	}
}

func firstGroup(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// validationProblem makes a Problem of the error that the CA put into a challenge: always the name's affair, save for the CA's own faults.
func validationProblem(ca, challengeType, name string, doc document) *Problem {
	p := &Problem{
		CA: ca, Op: "validate " + challengeType, Identifier: name, scope: ScopeName,
		Type: doc.typ, Detail: doc.detail, Instance: doc.instance, Subproblems: doc.subproblems,
	}
	switch k := kind(doc.typ); k {
	case "serverInternal":
		p.scope, p.Advice = ScopeCA, "the CA has a fault of its own; it is tried again"
	case "caa":
		p.Advice = adviceCAA
	default:
		p.Advice = validationAdvice(k, challengeType, name)
	}
	return p
}

// validationAdvice says what to look at when the CA could not see our answer to its challenge.
func validationAdvice(kind, challengeType, name string) string {
	if name == "" {
		name = "the name"
	}
	port := "80 or 443"
	switch challengeType {
	case ChallengeDNS01:
		return fmt.Sprintf("the CA did not see the TXT record that this server made at _acme-challenge.%s; check that the provider writes to the zone that the Internet asks, and its DNSSEC", strings.TrimPrefix(name, "*."))
	case ChallengeHTTP01:
		port = "80"
	case ChallengeTLSALPN01:
		port = "443"
	}
	switch kind {
	case "connection":
		return fmt.Sprintf("port %s of %s must reach this server from the Internet; check firewall and address records", port, name)
	case "dns", "unknownHost":
		return fmt.Sprintf("%s needs address records that lead to this server", name)
	case "tls":
		return fmt.Sprintf("port 443 of %s must reach this server without another TLS server in between", name)
	default:
		return fmt.Sprintf("the CA did not get this server's answer for %s on port %s; check that its address records lead here and that nothing in between answers", name, port)
	}
}

// networkAdvice says what to look at when the CA gave no usable answer.
func networkAdvice(err error) string {
	var bad *answerError
	var refused *urlError
	switch {
	case errors.As(err, &bad):
		return "the address answers, but not as an ACME server should; check `directory` and any proxy in between"
	case errors.As(err, &refused):
		return "the CA leads to an address that must not be followed; check `directory`"
	case isTLS(err):
		return "the CA's own certificate is not trusted; check `roots` and the clock"
	default:
		return "the CA cannot be reached; check the network and `directory`"
	}
}

// transient reports whether a second try within the same second has a chance: no answer or a fault of the CA, and no word of it when to come back.
func transient(err error) bool {
	var p *Problem
	if !errors.As(err, &p) || p.scope != ScopeCA || !p.retryAt.IsZero() || p.retried {
		return false
	}
	var refused *urlError
	return p.Status == 0 && p.Type == "" && p.Err != nil && !errors.As(err, &refused) && !isTLS(err) || p.Status >= 500
}

// strip removes from err what http.Client wraps around it: method and URL are said by Problem already.
func strip(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
