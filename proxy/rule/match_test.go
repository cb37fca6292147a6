package rule

import "testing"

func TestMatch_RefusesPatternsThatServersReadInDifferentWays(t *testing.T) {
	for pattern, ok := range map[string]bool{
		"/": true, "/*": true, "/a": true, "/a/": true, "/a/*": true, "/caf\u00e9": true, "/a%20b": true, "/a b": true,
		"": false, "a": false, "*": false, "/a*": false, "/*/a": false, "/a/**": false, "/a//b": false, "/../a": false, "/a/%2e": false, "/a;b": false, "/a%3bb": false,
		"/a%2fb": false, "/a\\b": false, "/a?b": false, "/a#b": false, "/%": false, "/%ff": false, "//*": false,
	} {
		if err := CheckPattern(pattern); (err == nil) != ok {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestMatch_CoversWhatCanNeverBeReachedBehindIt(t *testing.T) {
	for _, c := range []struct {
		first, second Match
		want          bool
	}{
		{Match{}, Match{Paths: []string{"/a"}}, true},
		{Match{Paths: []string{"/*"}}, Match{Paths: []string{"/a/*", "/"}}, true},
		{Match{Paths: []string{"/*"}}, Match{}, false}, // OPTIONS *
		{Match{Paths: []string{"/a/*"}}, Match{Paths: []string{"/a", "/a/b/*"}}, true},
		{Match{Paths: []string{"/a/*"}}, Match{Paths: []string{"/ab"}}, false},
		{Match{Paths: []string{"/a/*"}}, Match{Paths: []string{"/a", "/b"}}, false},
		{Match{Paths: []string{"/a"}}, Match{Paths: []string{"/a/*"}}, false},
		{Match{Paths: []string{"/a"}}, Match{Paths: []string{"/a"}}, true},
		{Match{Methods: []string{"GET"}}, Match{Methods: []string{"GET"}, Paths: []string{"/a"}}, true},
		{Match{Methods: []string{"GET"}}, Match{Methods: []string{"HEAD"}}, true},
		{Match{Methods: []string{"GET"}}, Match{}, false},
		{Match{}, Match{Methods: []string{"GET"}}, true},
	} {
		if got := c.first.Covers(c.second); got != c.want {
			t.Errorf("%v before %v: %v", c.first, c.second, got)
		}
	}
}
