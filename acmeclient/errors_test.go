package acmeclient

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// answered makes the exchange of an error answer.
func answered(endpoint string, status int, body string, headers ...string) *exchange {
	u, _ := url.Parse("https://ca.test/acme/x")
	ex := &exchange{endpoint: endpoint, status: status, url: u, header: http.Header{}}
	for i := 0; i+1 < len(headers); i += 2 {
		ex.header.Set(headers[i], headers[i+1])
	}
	ex.problem, ex.isProblem = parseDocument([]byte(body))
	return ex
}

func acmeError(typ, detail string) string {
	body, _ := json.Marshal(map[string]string{"type": problemNamespace + typ, "detail": detail})
	return string(body)
}

// TestRequestProblem_JudgesAsTheTable is the table of facts/acme-v2.md 5.7, with the texts of Boulder.
func TestRequestProblem_JudgesAsTheTable(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	const tooMany = "rateLimited"
	for _, tt := range []struct {
		name    string
		ex      *exchange
		scope   string
		subject string
		wait    time.Duration // until RetryAt; 0: the CA did not say
		advice  string
	}{
		{"bad nonce for ever", answered("", 400, acmeError("badNonce", "")), ScopeCA, "", 0, "nonces"},
		{"500", answered("", 500, acmeError("serverInternal", "x")), ScopeCA, "", 0, "fault of its own"},
		{"503 with Retry-After", answered("", 503, acmeError("serverInternal", "x"), "Retry-After", "120"), ScopeCA, "", 2 * time.Minute, ""},
		{"503 until tomorrow", answered("", 503, "", "Retry-After", "86400"), ScopeCA, "", maxOutageWait, ""},
		{"503 of the request rate", answered(endpointNewNonce, 503, acmeError(tooMany, "Service busy; retry later."), "Retry-After", "5"), ScopeAddress, "", 5 * time.Second, ""},
		{"502 in HTML", answered("", 502, "<html>"), ScopeCA, "", 0, "out of order"},
		{"404 in HTML", answered("", 404, "<html>"), ScopeCA, "", 0, "`directory`"},
		{"403 of a firewall", answered("", 403, "<html>"), ScopeCA, "", 0, "refuses"},
		{"serverInternal with 403", answered("", 403, acmeError("serverInternal", "ACMEv1 Brownout")), ScopeCA, "", 0, ""},
		{"unknown type", answered("", 400, `{"type":"urn:x:y","detail":"d"}`), ScopeCA, "", 0, ""},
		{"caa", answered("", 403, acmeError("caa", "")), ScopeName, "", 0, "CAA"},
		{"rejected", answered("", 400, acmeError("rejectedIdentifier", "")), ScopeName, "", 0, "another CA"},
		{"unsupported", answered("", 400, acmeError("unsupportedIdentifier", "")), ScopeName, "", 0, "another CA"},
		{"malformed name", answered("", 400, acmeError("malformed", `Cannot issue for "x": Domain name needs at least one dot`)), ScopeName, "", 0, "another CA"},
		{"malformed name by subproblem", answered("", 400, `{"type":"urn:ietf:params:acme:error:malformed","detail":"several","subproblems":[`+
			`{"type":"urn:ietf:params:acme:error:malformed","detail":"bad","identifier":{"type":"dns","value":"x.test"}}]}`), ScopeName, "", 0, "another CA"},
		{"malformed request", answered("", 400, acmeError("malformed", "JWS verification error")), ScopeCA, "", 0, "report"},
		{"nothing there", answered(endpointRenewalInfo, 404, acmeError("malformed", "Certificate not found")), ScopeCA, "", 0, "does not have"},
		{"bad CSR", answered("", 400, acmeError("badCSR", "")), ScopeName, "", 0, "new key"},
		{"bad public key", answered("", 400, acmeError("badPublicKey", "")), ScopeName, "", 0, "new key"},
		{"already replaced", answered("", 409, acmeError("alreadyReplaced", "")), ScopeName, "", 0, "without naming it"},
		{"not ready", answered("", 403, acmeError("orderNotReady", "")), ScopeName, "", 0, "continued"},
		{"revoked already", answered(endpointRevoke, 400, acmeError("alreadyRevoked", "")), ScopeName, "", 0, "nothing"},
		{"reason", answered(endpointRevoke, 400, acmeError("badRevocationReason", "")), ScopeName, "", 0, "another reason"},
		{"not ours to revoke", answered(endpointRevoke, 403, acmeError("unauthorized", "")), ScopeAccount, "", 0, "its own key"},
		{"key type", answered("", 400, acmeError("badSignatureAlgorithm", "")), ScopeAccount, "", 0, "key type"},
		{"contact scheme", answered("", 400, acmeError("unsupportedContact", "")), ScopeAccount, "", 0, "contact"},
		{"several at once", answered("", 400, acmeError("compound", "several")), ScopeCA, "", 0, "report"},
		{"validation in an order", answered("", 400, acmeError("dns", "NXDOMAIN")), ScopeName, "", 0, "address records"},
		{"profile", answered("", 400, acmeError("invalidProfile", "")), ScopeCA, "", 0, "profile"},
		{"lost account", answered("", 400, acmeError("accountDoesNotExist", "")), ScopeAccount, "", 0, "same key"},
		{"authorizations that ended before the CSR came", answered(endpointFinalize, 403, acmeError("unauthorized", "")), ScopeName, "", 0, "new order"},
		{"deactivated account", answered("", 403, acmeError("unauthorized", "")), ScopeAccount, "", 0, "deactivated"},
		{"binding", answered("", 400, acmeError("externalAccountRequired", "")), ScopeCA, "", actionPause, "binding"},
		{"new terms", answered("", 403, acmeError("userActionRequired", ""), "Link", `</tos/2>;rel="terms-of-service"`), ScopeCA, "", actionPause, "https://ca.test/tos/2"},
		{"page to agree at", answered("", 403, `{"type":"urn:ietf:params:acme:error:userActionRequired","detail":"x","instance":"https://ca.test/agree"}`,
			"Link", `</tos/2>;rel="terms-of-service"`), ScopeCA, "", actionPause, "see https://ca.test/agree; its terms of service now are https://ca.test/tos/2"},
		{"contact", answered("", 400, acmeError("invalidContact", "")), ScopeAccount, "", 0, "contact"},
		{"v1's namespace", answered("", 400, `{"type":"urn:acme:error:rejectedIdentifier","detail":"no"}`), ScopeName, "", 0, "another CA"},

		{"limit: address", answered(endpointNewAccount, 429, acmeError(tooMany, "too many new registrations (10) from this IP address in the last 3h0m0s, retry after 2026-11-21 12:30:00 UTC")),
			ScopeAddress, "", 30 * time.Minute, "limit"},
		{"limit: subnet", answered(endpointNewAccount, 429, acmeError(tooMany, "too many new registrations (500) from this /48 subnet of IPv6 addresses")), ScopeAddress, "", limitPause, "limit"},
		{"limit: account", answered(endpointNewOrder, 429, acmeError(tooMany, "too many new orders (300) from this account in the last 3h0m0s"), "Retry-After", "36"), ScopeAccount, "", 36 * time.Second, "limit"},
		{"limit: failures of a name", answered(endpointNewOrder, 429, acmeError(tooMany, `too many failed authorizations (5) for "www.example.com" in the last 1h0m0s`), "Retry-After", "720"),
			ScopeName, "www.example.com", 12 * time.Minute, "limit"},
		{"limit: registered domain", answered(endpointNewOrder, 429, acmeError(tooMany, `too many certificates (50) already issued for "Example.com" in the last 168h0m0s`), "Retry-After", "12120",
			"Link", `<https://letsencrypt.org/docs/rate-limits>;rel="help"`), ScopeDomain, "example.com", 202 * time.Minute, "https://letsencrypt.org/docs/rate-limits"},
		{"limit: registered domain, old text", answered(endpointNewOrder, 429, acmeError(tooMany, `Error creating new order :: too many certificates already issued for: example.com: see https://letsencrypt.org`)),
			ScopeDomain, "example.com", 0, "limit"},
		{"limit: same set", answered(endpointNewOrder, 429, acmeError(tooMany, `too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s`), "Retry-After", "122400"),
			ScopeName, "", 34 * time.Hour, "limit"},
		{"limit: paused", answered(endpointNewOrder, 429, acmeError(tooMany, "Your account is temporarily prevented from requesting certificates for a.test and possibly others. Please visit: https://ca.test/sfe/v1/unpause?jwt=x")),
			ScopeName, "", pausedWait, "https://ca.test/sfe/v1/unpause?jwt=x"},
		{"limit: unknown text", answered(endpointNewOrder, 429, acmeError(tooMany, "no more"), "Retry-After", "60"), ScopeAccount, "", time.Minute, "limit"},
		{"limit: in a year", answered(endpointNewOrder, 429, acmeError(tooMany, "no more"), "Retry-After", "31536000"), ScopeAccount, "", maxLimitWait, "limit"},
		{"limit: date in the past", answered(endpointNewOrder, 429, acmeError(tooMany, "no more"), "Retry-After", "Sat, 21 Nov 2026 11:00:00 GMT"), ScopeAccount, "", time.Second, "limit"},
		{"429 in HTML at newNonce", answered(endpointNewNonce, 429, "<html>"), ScopeAddress, "", limitPause, "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := requestProblem("ca", "order", tt.ex, nil, now)
			if p.Scope() != tt.scope || p.subject != tt.subject {
				t.Errorf("scope is %s of %q, wanted %s of %q", p.Scope(), p.subject, tt.scope, tt.subject)
			}
			if tt.wait == 0 && !p.RetryAt().IsZero() || tt.wait != 0 && !p.RetryAt().Equal(now.Add(tt.wait)) {
				t.Errorf("retry at %v, wanted %v later than %v", p.RetryAt(), tt.wait, now)
			}
			if p.Advice == "" || !strings.Contains(p.Advice, tt.advice) {
				t.Errorf("advice is %q", p.Advice)
			}
		})
	}
}

// TestRequestProblem_HasOneSentencePerClass: of each type of RFC 8555 §6.7 and its extensions, and no two classes share one.
func TestRequestProblem_HasOneSentencePerClass(t *testing.T) {
	classes := [][]string{
		{"accountDoesNotExist"}, {"alreadyReplaced"}, {"alreadyRevoked"}, {"badCSR", "badPublicKey"}, {"badNonce"}, {"badRevocationReason"}, {"badSignatureAlgorithm"},
		{"caa"}, {"connection"}, {"dns"}, {"externalAccountRequired"}, {"incorrectResponse"}, {"invalidContact", "unsupportedContact"}, {"invalidProfile"},
		{"malformed", "compound"}, {"orderNotReady"}, {"rateLimited"}, {"rejectedIdentifier", "unsupportedIdentifier"}, {"serverInternal"}, {"tls"}, {"unauthorized"},
		{"userActionRequired"},
	}
	seen := map[string]string{}
	for _, class := range classes {
		var advice string
		for i, typ := range class {
			p := requestProblem("ca", "op", answered("", 400, acmeError(typ, "x")), nil, time.Now())
			if i > 0 && p.Advice != advice {
				t.Errorf("%s and %s differ: %q, %q", class[0], typ, advice, p.Advice)
			}
			advice = p.Advice
		}
		if other := seen[advice]; advice == "" || other != "" || strings.ContainsAny(advice, ".\n") && !strings.Contains(advice, "://") {
			t.Errorf("%v: %q, as %s", class, advice, other)
		}
		seen[advice] = class[0]
	}
}

func TestValidationProblem_IsHeldAgainstTheName(t *testing.T) {
	for _, tt := range []struct{ typ, challenge, scope, advice string }{
		{"connection", ChallengeHTTP01, ScopeName, "port 80 of www.example.com must reach"},
		{"connection", ChallengeTLSALPN01, ScopeName, "port 443 of www.example.com must reach"},
		{"dns", ChallengeHTTP01, ScopeName, "address records"},
		{"tls", ChallengeTLSALPN01, ScopeName, "another TLS server"},
		{"unauthorized", ChallengeHTTP01, ScopeName, "port 80"},
		{"incorrectResponse", ChallengeHTTP01, ScopeName, "port 80"},
		{"caa", ChallengeHTTP01, ScopeName, "CAA"},
		{"neverHeardOf", ChallengeHTTP01, ScopeName, "port 80"},
		{"serverInternal", ChallengeHTTP01, ScopeCA, "fault of its own"},
	} {
		p := validationProblem("ca", tt.challenge, "www.example.com", document{typ: problemNamespace + tt.typ})
		if p.Scope() != tt.scope || !strings.Contains(p.Advice, tt.advice) || !p.RetryAt().IsZero() {
			t.Errorf("%s: %+v", tt.typ, p)
		}
	}
}

func TestProblem_SaysWhatHappenedAndWhatToDo(t *testing.T) {
	cause := errors.New("connection refused")
	for want, p := range map[string]*Problem{
		"place the order at le for a.test: status 400 rejectedIdentifier forbidden (use another)": {
			CA: "le", Op: "place the order", Identifier: "a.test", Status: 400, Type: problemNamespace + "rejectedIdentifier", Detail: "forbidden", Advice: "use another"},
		"get the directory at le: connection refused (check)": {CA: "le", Op: "get the directory", Err: cause, Advice: "check"},
	} {
		if got := p.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if !errors.Is(&Problem{Err: cause}, cause) {
		t.Error("the cause is lost")
	}
}

func TestParseDocument_IsLenient(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		ok         bool
		detail     string
	}{
		{"status as text", `{"type":"t","detail":"d","status":"403"}`, true, "d"},
		{"type of another kind", `{"type":5,"detail":"d"}`, true, "d"},
		{"terminal escapes", `{"detail":"a\u001b[31mb\nc\u202ed"}`, true, "a[31mb cd"},
		{"odd subproblems", `{"detail":"d","subproblems":{"a":1}}`, true, "d"},
		{"no type and no detail", `{"title":"x"}`, false, ""},
		{"HTML", `<html>`, false, ""},
		{"array", `[]`, false, ""},
	} {
		doc, ok := parseDocument([]byte(tt.body))
		if ok != tt.ok || doc.detail != tt.detail {
			t.Errorf("%s: %+v, %v", tt.name, doc, ok)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	for _, s := range []string{
		acmeError("rateLimited", `too many certificates (50) already issued for "example.com"`), `{"type":"x","subproblems":[{"identifier":{"value":"a"}}]}`,
		`{"detail":"retry after 2026-11-21 12:30:00 UTC"}`, `{"type":5}`, `<html>`, ``, `null`,
		acmeError("malformed", "x"), acmeError("userActionRequired", "x"), "{\"detail\":\"\x1b[31m\\u202e\"}",
	} {
		f.Add([]byte(s), 429, "120")
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte, status int, retry string) {
		ex := answered(endpointNewOrder, 400+int(uint(status)%200), string(body), "Retry-After", retry)
		p := requestProblem("ca", "op", ex, nil, now)
		if p.Scope() == "" || p.Advice == "" {
			t.Errorf("no scope or advice: %+v", p)
		}
		if at := p.RetryAt(); !at.IsZero() && (at.Before(now) || at.After(now.Add(maxLimitWait))) {
			t.Errorf("retry at %v", at)
		}
		for _, r := range p.Error() {
			if unicode.IsControl(r) {
				t.Errorf("control character in %q", p.Error())
			}
		}
		if !utf8.ValidString(p.Error()) || len(p.Subproblems) > maxSubproblems {
			t.Errorf("out of bounds: %q", p.Error())
		}
	})
}
