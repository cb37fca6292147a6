package proxy

import (
	"fmt"
	"slices"
	"strings"
)

// template is a text of the configuration with placeholders. It is taken apart once; what a request puts in is never looked at again, so that no client can
// make a placeholder.
type template []templatePart

// templatePart is text, or the name of a placeholder.
type templatePart struct{ text, name string }

// parseTemplate takes "text {name} text", for the names that exist. "{{" and "}}" are braces.
func parseTemplate(s string, names ...string) (template, error) {
	var t template
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
			t = append(t, templatePart{text: text.String()}, templatePart{name: name})
			text.Reset()
			i += end
		}
	}
	return append(t, templatePart{text: text.String()}), nil
}

// expand puts values in.
func (t template) expand(value func(name string) string) string {
	if len(t) == 1 {
		return t[0].text
	}
	var b strings.Builder
	for _, p := range t {
		if p.name != "" {
			b.WriteString(value(p.name))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// has reports whether the template has the placeholder.
func (t template) has(name string) bool {
	return slices.ContainsFunc(t, func(p templatePart) bool { return p.name == name })
}
