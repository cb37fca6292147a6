package storage

import (
	"slices"
	"strings"
)

// A page collects the first names of a listing from names that come in any order, in memory bounded by its limit.
type page struct {
	prefix, after string
	limit         int
	found         []string
	bound         string // once the page is full: the greatest name on it
}

func newPage(prefix, after string, limit int) *page {
	if limit <= 0 {
		limit = 1000
	}
	return &page{prefix: prefix, after: after, limit: min(limit, 1<<30)}
}

// add takes the name if it belongs on the page.
func (p *page) add(name string) {
	if name <= p.after || !strings.HasPrefix(name, p.prefix) || p.bound != "" && name > p.bound {
		return
	}
	p.found = append(p.found, name)
	if len(p.found) >= 2*p.limit+1024 { // so that sorting costs a few comparisons a name, whatever the limit
		p.cut()
	}
}

func (p *page) cut() {
	slices.Sort(p.found)
	if len(p.found) >= p.limit {
		p.found = p.found[:p.limit]
		p.bound = p.found[p.limit-1]
	}
}

func (p *page) names() []string {
	p.cut()
	return p.found
}
