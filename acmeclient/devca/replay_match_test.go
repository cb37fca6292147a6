package devca

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// matcher compares recorded text with ours. What was random at the recording (ids, tokens, serials, keys, dates) has to have the same shape, and the same
// recorded value has to stand for the same value of ours everywhere.
type matcher struct {
	base   string            // ours, for recordedBase
	ours   map[string]string // by recorded value
	theirs map[string]string // the other way round
}

func newMatcher(base string) *matcher {
	return &matcher{base: base, ours: make(map[string]string), theirs: make(map[string]string)}
}

// random finds the variable parts: dates, loopback addresses, paths with an id, serials, and anything in base64url that is long enough to be a token, a
// digest, a key or a nonce.
var random = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z` +
	`|127\.0\.0\.\d+` +
	`|/(?:reg|acct|authz-v3|chall-v3)/\d+(?:/[A-Za-z0-9_-]{6})?` +
	`|\b[0-9a-f]{36}\b` +
	`|[A-Za-z0-9_-]{43,}`)

// The recorded server's addresses: v1, v2, and v1 with its end-of-life switches thrown.
const recordedBase = "http://localhost:4000"

var toDevca = strings.NewReplacer(
	"http://localhost:4001/terms/v7", recordedBase+"/terms/v1",
	"http://localhost:4001/directory", recordedBase+"/v2/directory",
	"http://localhost:4001/acme/", recordedBase+"/v2/",
	"http://localhost:4010", recordedBase,
	"happy-hacker-ca.invalid", caaIdentity,
	"https://github.com/letsencrypt/boulder", "https://"+caaIdentity,
)

// changing reports whether a variable part may differ each time.
func changing(s string) bool {
	return strings.HasPrefix(s, "127.") || strings.HasSuffix(s, "Z") && strings.Contains(s, "T")
}

// shape is a variable part without what varies.
func shape(s string) string {
	switch {
	case changing(s):
		return regexp.MustCompile(`\d+`).ReplaceAllString(s, "0")
	case strings.HasPrefix(s, "/"):
		return regexp.MustCompile(`/\d+(/.*)?`).ReplaceAllString(s, "/0")
	}
	return ""
}

// bind declares that a recorded value stands for one of ours.
func (m *matcher) bind(recorded, ours string) error {
	if got, ok := m.ours[recorded]; ok && got != ours {
		return fmt.Errorf("recorded %q was %q before and is %q now", recorded, got, ours)
	}
	if got, ok := m.theirs[ours]; ok && got != recorded {
		return fmt.Errorf("our %q was recorded as %q before and as %q now", ours, got, recorded)
	}
	m.ours[recorded], m.theirs[ours] = ours, recorded
	return nil
}

// text compares two strings.
func (m *matcher) text(recorded, ours string) error {
	recorded = toDevca.Replace(recorded)
	ours = strings.ReplaceAll(ours, m.base, recordedBase)
	if random.ReplaceAllString(recorded, "?") != random.ReplaceAllString(ours, "?") {
		return fmt.Errorf("got %q, recorded %q", ours, recorded)
	}
	rs, us := random.FindAllString(recorded, -1), random.FindAllString(ours, -1)
	for i := range rs {
		if shape(rs[i]) != shape(us[i]) {
			return fmt.Errorf("got %q of another form than the recorded %q", us[i], rs[i])
		}
		if changing(rs[i]) {
			continue
		}
		if err := m.bind(rs[i], us[i]); err != nil {
			return err
		}
	}
	return nil
}

// toOurs translates recorded text for a request; what was not seen before stays as it is.
func (m *matcher) toOurs(recorded string) string {
	out := random.ReplaceAllStringFunc(toDevca.Replace(recorded), func(s string) string {
		if o, ok := m.ours[s]; ok {
			return o
		}
		return s
	})
	return strings.ReplaceAll(out, recordedBase, m.base)
}

// json compares two decoded JSON values, naming the place of the first difference.
func (m *matcher) json(at string, recorded, ours any) error {
	switch r := recorded.(type) {
	case map[string]any:
		o, ok := ours.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: got %v, recorded an object", at, ours)
		}
		return m.object(at, r, o)
	case []any:
		o, ok := ours.([]any)
		if !ok || len(o) != len(r) {
			return fmt.Errorf("%s: got %v, recorded %v", at, ours, recorded)
		}
		if strings.HasSuffix(at, ".challenges") { // shuffled at each answer
			r, o = sortedByType(r), sortedByType(o)
		}
		for i := range r {
			if err := m.json(fmt.Sprintf("%s[%d]", at, i), r[i], o[i]); err != nil {
				return err
			}
		}
		return nil
	case string:
		o, ok := ours.(string)
		if ok && strings.HasSuffix(at, ".port") {
			r, o = "", ""
		}
		if !ok {
			return fmt.Errorf("%s: got %v, recorded %q", at, ours, r)
		}
		if err := m.text(r, o); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		return nil
	}
	if at == ".id" { // a registration's
		return m.text(fmt.Sprintf("/reg/%v", recorded), fmt.Sprintf("/reg/%v", ours))
	}
	if recorded != ours {
		return fmt.Errorf("%s: got %v, recorded %v", at, ours, recorded)
	}
	return nil
}

func (m *matcher) object(at string, recorded, ours map[string]any) error {
	r, o := withoutRandomKey(recorded), withoutRandomKey(ours)
	if want, got := slices.Sorted(maps.Keys(r)), slices.Sorted(maps.Keys(o)); !slices.Equal(want, got) {
		return fmt.Errorf("%s: got members %v, recorded %v", at, got, want)
	}
	for _, k := range slices.Sorted(maps.Keys(r)) {
		if err := m.json(at+"."+k, r[k], o[k]); err != nil {
			return err
		}
	}
	return nil
}

// withoutRandomKey gives a directory's random key one name.
func withoutRandomKey(o map[string]any) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		if v == randomEntry && len(k) == 11 {
			k = "(random)"
		}
		out[k] = v
	}
	return out
}

func sortedByType(list []any) []any {
	out := slices.Clone(list)
	slices.SortFunc(out, func(a, b any) int { return cmp.Compare(typeOf(a), typeOf(b)) })
	return out
}

func typeOf(v any) string {
	o, _ := v.(map[string]any)
	s, _ := o["type"].(string)
	return s
}

func decodeAny(data []byte) (any, error) {
	var v any
	err := json.Unmarshal(data, &v)
	return v, err
}

// TestMatcher_SeesEveryKindOfDifference keeps the comparison itself honest.
func TestMatcher_SeesEveryKindOfDifference(t *testing.T) {
	const token, otherToken = "plq_N4evGuvYi3f-M0M51dOThmEwTgysqm2MCtvm51k", "GQmcieSO8KeremnqQgcrmwmlWBO6yftvbRgo9yqAu8Q"
	for _, tt := range []struct {
		name, recorded, ours string
		same                 bool
	}{
		{"equal", `{"a":"b"}`, `{"a":"b"}`, true},
		{"another text", `{"a":"b"}`, `{"a":"c"}`, false},
		{"a member missing", `{"a":"b","c":1}`, `{"a":"b"}`, false},
		{"a member too many", `{"a":"b"}`, `{"a":"b","c":1}`, false},
		{"another number", `{"status":400}`, `{"status":403}`, false},
		{"another type", `{"a":"1"}`, `{"a":1}`, false},
		{"shorter list", `{"a":[1,2]}`, `{"a":[1]}`, false},
		{"another id", `{"u":"http://localhost:4000/acme/reg/5"}`, `{"u":"http://x.test/acme/reg/1"}`, true},
		{"an id of another kind", `{"u":"http://localhost:4000/acme/reg/5"}`, `{"u":"http://x.test/acme/authz-v3/5"}`, false},
		{"another host", `{"u":"http://localhost:4000/acme/reg/5"}`, `{"u":"http://y.test/acme/reg/1"}`, false},
		{"another path", `{"u":"http://localhost:4000/acme/reg/5"}`, `{"u":"http://x.test/acme/regs/1"}`, false},
		{"one recorded id for two of ours", `["http://localhost:4000/acme/reg/5","/reg/5"]`, `["http://x.test/acme/reg/1","/reg/2"]`, false},
		{"two recorded tokens for one of ours", `["` + token + `","` + otherToken + `"]`, `["` + token + `","` + token + `"]`, false},
		{"another time", `{"d":"2026-11-21T17:50:28Z"}`, `{"d":"2027-01-02T03:04:05Z"}`, true},
		{"a time in another zone", `{"d":"2026-11-21T17:50:28Z"}`, `{"d":"2027-01-02T03:04:05+01:00"}`, false},
		{"a fraction too many", `{"d":"2026-11-21T17:50:28Z"}`, `{"d":"2027-01-02T03:04:05.6Z"}`, false},
		{"challenges in another order", `{"challenges":[{"type":"a"},{"type":"b"}]}`, `{"challenges":[{"type":"b"},{"type":"a"}]}`, true},
		{"other lists in another order", `{"list":[{"type":"a"},{"type":"b"}]}`, `{"list":[{"type":"b"},{"type":"a"}]}`, false},
	} {
		recorded, err := decodeAny([]byte(tt.recorded))
		must(t, err)
		ours, err := decodeAny([]byte(tt.ours))
		must(t, err)
		if err := newMatcher("http://x.test").json("", recorded, ours); (err == nil) != tt.same {
			t.Errorf("%s: got %v, want same %v", tt.name, err, tt.same)
		}
	}
}
