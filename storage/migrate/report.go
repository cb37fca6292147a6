package migrate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Report says what Import did.
type Report struct {
	DryRun bool

	// Certificates are those that were whole and have not ended; Ended are those that have.
	Certificates, Ended int

	// Names by what became of their certificate: stored where there was none, stored over an older one, there already, and left because the store has one that
	// ends no earlier.
	Created, Replaced, There, Newer int

	// Accounts were found, AccountsStored of them taken over.
	Accounts, AccountsStored int

	// Skipped was left out on purpose. Problems are what could not be imported, the first thousand; Failed is how many there are.
	Skipped, Problems []Problem
	Failed            int
}

// Problem is something that was not imported.
type Problem struct {
	Where string // in the source
	What  string // never shows contents
}

// maxProblems bounds Report.Problems.
const maxProblems = 1000

func (r *Report) problem(where string, err error) {
	if r.Failed++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, Problem{where, err.Error()})
	}
}

func (r *Report) countName(o outcome) {
	switch o {
	case created:
		r.Created++
	case replaced:
		r.Replaced++
	case there:
		r.There++
	case newer:
		r.Newer++
	}
}

func (r *Report) sort() {
	byPlace := func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.What, b.What))
	}
	slices.SortFunc(r.Skipped, byPlace)
	slices.SortFunc(r.Problems, byPlace)
}

// String is the report for a person, several lines.
func (r *Report) String() string {
	var b strings.Builder
	would := ""
	if r.DryRun {
		would = "would be "
	}
	line := func(n int, format string, args ...any) { fmt.Fprintf(&b, "%8d %s\n", n, fmt.Sprintf(format, args...)) }
	line(r.Certificates, "certificates found")
	line(r.Created, "names %sstored", would)
	line(r.Replaced, "names %sstored over an older certificate", would)
	line(r.There, "names were stored before")
	for _, optional := range []struct {
		n    int
		what string
	}{
		{r.Newer, "names have a certificate here that ends no earlier"},
		{r.Ended, "certificates have ended, left out"},
		{r.Accounts, "accounts found"},
		{r.AccountsStored, "accounts taken over"},
		{r.Failed, "not imported"},
	} {
		if optional.n > 0 {
			line(optional.n, "%s", optional.what)
		}
	}
	for _, p := range r.Skipped {
		fmt.Fprintf(&b, "left out: %s: %s\n", p.Where, p.What)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "not imported: %s: %s\n", p.Where, p.What)
	}
	if more := r.Failed - len(r.Problems); more > 0 {
		fmt.Fprintf(&b, "not imported: %d more\n", more)
	}
	return b.String()
}
