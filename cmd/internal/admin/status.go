package admin

import "time"

// CertStatus is what an operator sees of one certificate.
type CertStatus struct {
	Name   string `json:"name"`             // what the certificate is for
	For    string `json:"for,omitempty"`    // the host that was asked about, if a wildcard's certificate serves it
	Site   string `json:"site,omitempty"`   // the site that claims the name
	Tenant string `json:"tenant,omitempty"` // whose name it is, for budgets and turns
	State  string `json:"state"`            // a few words: "serving", "renewing", "backing off" ...
	CA     string `json:"ca,omitempty"`     // who issued it

	// The dates of the certificate, and when it will be renewed; zero where there is none.
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	RenewAt   time.Time `json:"renew_at,omitzero"`

	// Renewal is when the CA wants it renewed (RFC 9773); nil if it does not say.
	Renewal *Renewal `json:"renewal,omitempty"`

	// What went wrong last, how often in a row, and when it is tried again. LastError is Failure in one sentence.
	LastError   string    `json:"last_error,omitempty"`
	Failure     *Failure  `json:"failure,omitempty"`
	Attempts    int       `json:"attempts,omitempty"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`

	// OnVisit means that nothing is tried without a visitor; NextAttempt is then when the first is that has it tried.
	OnVisit bool `json:"on_visit,omitempty"`

	// What an order waits for: its place in the queue (1 is next) and when it should come, the budget that holds it back, who holds the lease.
	Position int       `json:"position,omitempty"`
	Expected time.Time `json:"expected,omitzero"`
	Budget   string    `json:"budget,omitempty"`
	Holder   string    `json:"holder,omitempty"`

	// Abandoned is why the certificate is not renewed any more; empty if it is.
	Abandoned string `json:"abandoned,omitempty"`

	Serial   string            `json:"serial,omitempty"` // hexadecimal
	Key      string            `json:"key,omitempty"`    // its kind
	MayIssue []string          `json:"may_issue,omitempty"`
	Notes    map[string]string `json:"notes,omitempty"` // for a person: protocol version, challenge, order URL, profile

	// Second is about the certificate for clients that cannot use the main one.
	Second *CertStatus `json:"second,omitempty"`
}

// Renewal is what a CA says about a certificate's renewal.
type Renewal struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"` // URL of a page for a person
	NextCheck   time.Time `json:"next_check,omitzero"`
}

// Failure is why a certificate was not issued.
type Failure struct {
	At     time.Time `json:"at,omitzero"`
	CA     string    `json:"ca,omitempty"`
	Scope  string    `json:"scope,omitempty"`  // whom it concerns
	Type   string    `json:"type,omitempty"`   // the CA's problem type
	Detail string    `json:"detail,omitempty"` // the CA's own words
	Advice string    `json:"advice,omitempty"` // what to do
	View   string    `json:"view,omitempty"`   // how the name looked from here
	Paused bool      `json:"paused,omitempty"` // by the CA, until a person has been there
	Own    bool      `json:"own,omitempty"`    // we saw it ourselves and sent the CA no order: type and detail are ours

	// Names tells of each name by itself, where the CA does.
	Names []string `json:"names,omitempty"`
}

// Retried is what came of `certs retry`.
type Retried struct {
	Names int       `json:"names"`                 // that are tried again
	Next  time.Time `json:"next_attempt,omitzero"` // of a single one that a budget still holds back; zero: now
}
