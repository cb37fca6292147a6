package rule

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
)

// HopByHop are the fields that concern one connection (RFC 9110 §7.6.1), with those that this proxy writes itself: Content-Length and Trailer are
// made anew from how the message is framed, Host from the request.
var HopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// ErrOwnField is wrapped where somebody wants to have a say about a field that is this proxy's own.
var ErrOwnField = errors.New("it is the proxy's own: what it says must not depend on anybody")

// CheckFieldName reports what is wrong with the name of a field; owned, which may be nil, reports whether a canonical name is not to be touched.
func CheckFieldName(name string, owned func(string) bool) error {
	switch {
	case !isToken(name):
		return fmt.Errorf("header %q: this is no name of a field", name)
	case strings.IndexByte(name, '_') >= 0:
		return fmt.Errorf("header %q: many applications take _ for -, and a client could send the other spelling; write -", name)
	case owned != nil && owned(textproto.CanonicalMIMEHeaderKey(name)):
		return fmt.Errorf("header %q: %w", name, ErrOwnField)
	}
	return nil
}

// ParseField takes the value of a field, with {host}, {client.ip}, {request.id} and {ask.tenant}.
func ParseField(name, value string, owned func(string) bool) (Template, error) {
	if err := CheckFieldName(name, owned); err != nil {
		return nil, err
	}
	if !IsFieldValue(value) {
		return nil, fmt.Errorf("header %q: the value has control characters, or space at its ends", name)
	}
	t, err := ParseTemplate(value, "host", "client.ip", "request.id", "ask.tenant")
	if err != nil {
		return nil, fmt.Errorf("header %q: %w", name, err)
	}
	return t, nil
}

// IsFieldValue reports whether s may be the value of a field (RFC 9110 §5.5).
func IsFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return strings.Trim(s, " \t") == s
}

// OwnsRequestField reports whether the field of a request is about framing or the connection, or this proxy's own word.
func OwnsRequestField(name string) bool {
	switch name {
	case "Host", "Content-Length", "Forwarded", "Via", "Expect", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Request-Id":
		return true
	}
	return slices.Contains(HopByHop, name)
}

// OwnsResponseField reports whether the field of an answer is about framing, coding or the connection, or set by another option.
func OwnsResponseField(name string) bool {
	switch name {
	case "Content-Length", "Content-Encoding", "Content-Range", "Alt-Svc", "Strict-Transport-Security":
		return true
	}
	return slices.Contains(HopByHop, name)
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// SameVariable reports whether an application that turns names of fields into variables (CGI, WSGI, PHP) could take a for b: Remote_User for Remote-User.
func SameVariable(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if FoldVariable(a[i]) != FoldVariable(b[i]) {
			return false
		}
	}
	return true
}

// FoldVariable maps the bytes that such applications do not tell apart to one: letters lose their case, and what is neither letter nor digit is "-".
func FoldVariable(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}
