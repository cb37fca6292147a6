package acmeclient

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// document is a problem document (RFC 7807, RFC 8555 §6.7) as the CA sent it, in bounds and without control characters: it ends in logs and terminals.
type document struct {
	typ, detail, instance string
	subproblems           []Subproblem
}

// Subproblem is the part of a problem that concerns one identifier (RFC 8555 §6.7.1).
type Subproblem struct {
	Type       string
	Detail     string
	Identifier string // DNS name or IP address; empty if the CA did not say
}

// Bounds of what is kept of a problem document.
const (
	maxDetail      = 2 << 10
	maxSubproblems = 100
)

// parseDocument reads a problem document. It is as lenient as CAs are careless: fields of the wrong type count as absent, `status` is not read at all (the
// HTTP status decides). It reports false if body is no JSON object with at least a type or a detail.
func parseDocument(body []byte) (document, bool) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(body, &raw) != nil {
		return document{}, false
	}
	doc := document{typ: text(raw["type"]), detail: text(raw["detail"]), instance: text(raw["instance"])}
	var subs []map[string]json.RawMessage
	if json.Unmarshal(raw["subproblems"], &subs) == nil {
		for _, sub := range subs[:min(len(subs), maxSubproblems)] {
			var id map[string]json.RawMessage
			_ = json.Unmarshal(sub["identifier"], &id) // absent or odd: no identifier
			doc.subproblems = append(doc.subproblems, Subproblem{
				Type: text(sub["type"]), Detail: text(sub["detail"]), Identifier: text(id["value"]),
			})
		}
	}
	return doc, doc.typ != "" || doc.detail != ""
}

// text returns the JSON string in raw, cleaned; anything else is empty.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return clean(s)
}

// clean makes foreign text fit to be printed: bounded, valid UTF-8, one line, no control or formatting characters (terminal escapes, bidi overrides).
func clean(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// kind returns the last part of a problem type, "rateLimited", for v2's namespace and for that of v1; other types have none.
func kind(typ string) string {
	for _, ns := range []string{"urn:ietf:params:acme:error:", "urn:acme:error:"} {
		if k, ok := strings.CutPrefix(typ, ns); ok {
			return k
		}
	}
	return ""
}
