package rule

import (
	"fmt"
	"slices"
	"strings"
)

// Template is a text of the configuration with placeholders. It is taken apart once; what a request puts in is never looked at again, so that no client can
// make a placeholder.
type Template []Part

// Part is text, or the name of a placeholder.
type Part struct{ Text, Name string }

// ParseTemplate takes "text {name} text", for the names that exist. "{{" and "}}" are braces.
func ParseTemplate(s string, names ...string) (Template, error) {
	var t Template
	var text strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '{' && s[i] != '}':
			text.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == s[i]:
			text.WriteByte(s[i])
			i++
		case s[i] == '}':
			return nil, fmt.Errorf("%q: } without {; write }} for a brace", s)
		default:
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("%q: { without }; write {{ for a brace", s)
			}
			name := s[i+1 : i+end]
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("%q: there is no placeholder {%s}; there are {%s}, and {{ for a brace", s, name, strings.Join(names, "}, {"))
			}
			t = append(t, Part{Text: text.String()}, Part{Name: name})
			text.Reset()
			i += end
		}
	}
	return append(t, Part{Text: text.String()}), nil
}

// Expand puts values in.
func (t Template) Expand(value func(name string) string) string {
	if len(t) == 1 {
		return t[0].Text
	}
	var b strings.Builder
	for _, p := range t {
		if p.Name != "" {
			b.WriteString(value(p.Name))
		} else {
			b.WriteString(p.Text)
		}
	}
	return b.String()
}
