package permission

import "time"

// Report is what a person may know of a permission and a name: from memory, nobody is asked.
type Report struct {
	By string `json:"by"` // "ask" or "names_file", as the configuration calls it

	// Verdict is "allowed" or "denied", empty where nothing is remembered. It was given at Asked, and nobody is asked again before Until; a file has neither.
	Verdict string    `json:"verdict,omitempty"`
	Asked   time.Time `json:"asked,omitzero"`
	Until   time.Time `json:"until,omitzero"`

	// Failing is why the endpoint gave no verdict the last time it was asked, about whatever name, and Since when that is so. Empty: it did. Meanwhile what it allowed
	// goes on being allowed until Stale, if that is not zero.
	Failing string    `json:"failing,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Stale   time.Time `json:"stale,omitzero"`
}

// A Reporter is a permission that can tell.
type Reporter interface {
	Report(name string) Report
}

var (
	_ Reporter = (*Ask)(nil)
	_ Reporter = (*NamesFile)(nil)
)

// The verdicts of a Report.
const (
	verdictAllowed = "allowed"
	verdictDenied  = "denied"
)

func verdictOf(allowed bool) string {
	if allowed {
		return verdictAllowed
	}
	return verdictDenied
}

// Report tells what is remembered of the name, and whether the endpoint fails.
func (a *Ask) Report(name string) Report {
	r := Report{By: "ask"}
	answer, known := a.answers.Get(name)
	if known && (answer.err == nil || answer.Allowed) {
		r.Verdict, r.Asked = verdictOf(answer.Allowed), answer.Asked
		if answer.err == nil && !answer.fresh.IsZero() {
			r.Until = answer.fresh
		}
	}
	if f := a.failing.Load(); f != nil {
		r.Failing, r.Since = f.err.Error(), f.since
		if r.Verdict == verdictAllowed && a.cfg.StaleIfError > 0 {
			r.Stale = answer.Asked.Add(a.cfg.StaleIfError)
		}
	}
	return r
}

// Report tells whether the file has the name.
func (f *NamesFile) Report(name string) Report {
	return Report{By: "names_file", Verdict: verdictOf(f.names.Load().has(name))}
}

// outage is a time in which the endpoint gives no verdict.
type outage struct {
	since time.Time
	err   error // the last
}
