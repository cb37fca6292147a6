package main

import "testing"

func TestReport_FindsLostUpdatesAndInversions(t *testing.T) {
	for name, c := range map[string]struct {
		object       string
		acknowledged []string
		want         report
	}{
		"all in order":               {"10 a\n11 b\n15 c\n", []string{"a", "b", "c"}, report{Acknowledged: 3}},
		"one was killed before":      {"10 a\n11 b\n", []string{"a"}, report{Acknowledged: 1, Unheard: 1}},
		"one is lost":                {"10 a\n15 c\n", []string{"a", "b", "c"}, report{Acknowledged: 3, Lost: 1}},
		"a paused holder wrote late": {"10 a\n15 c\n11 b\n", []string{"a", "b", "c"}, report{Acknowledged: 3, Inversions: 1}},
		"two with one lease":         {"10 a\n10 b\n", []string{"a", "b"}, report{Acknowledged: 2, Inversions: 1}},
		"nothing":                    {"", nil, report{}},
	} {
		t.Run(name, func(t *testing.T) {
			history, err := parseHistory([]byte(c.object))
			if err != nil {
				t.Fatal(err)
			}
			acknowledged := map[string]bool{}
			for _, id := range c.acknowledged {
				acknowledged[id] = true
			}
			var is report
			is.compare(history, acknowledged)
			if is != c.want {
				t.Errorf("%+v, want %+v", is, c.want)
			}
			if bad := c.want.Lost+c.want.Inversions > 0; (is.verdict() != nil) != bad {
				t.Errorf("verdict: %v", is.verdict())
			}
			is.WithoutCAS = true
			if (is.verdict() == nil) != (is.Lost > 0) {
				t.Errorf("verdict of the control: %v", is.verdict())
			}
		})
	}
	if _, err := parseHistory([]byte("10 a\nx\n")); err == nil {
		t.Error("a damaged history was read")
	}
}
