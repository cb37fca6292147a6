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

	// Permission is what the process remembers of whether the name may have a certificate; nil for names that need none.
	Permission *Permission `json:"permission,omitempty"`

	// Revocations are those of certificates of the name that have not ended yet, the latest first.
	Revocations []RevocationStatus `json:"revocations,omitempty"`

	// Unread is why storage could not be read, so that the rest is what the process remembers. Empty: it could.
	Unread string `json:"unread,omitempty"`

	// Second is about the certificate for clients that cannot use the main one.
	Second *CertStatus `json:"second,omitempty"`
}

// Permission is what is remembered of on_demand.ask or on_demand.names_file and a name.
type Permission struct {
	By      string    `json:"by"`                // "ask" or "names_file"
	Verdict string    `json:"verdict,omitempty"` // "allowed", "denied"; empty: nothing is remembered
	Asked   time.Time `json:"asked,omitzero"`    // when that was said
	Until   time.Time `json:"until,omitzero"`    // before then nobody is asked again

	// Why the endpoint gives no verdict about any name, since when, and until when an "allowed" holds in spite of it.
	Failing string    `json:"failing,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Stale   time.Time `json:"stale,omitzero"`
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

// RevocationStatus is how far the revocation of a certificate has come.
type RevocationStatus struct {
	Serial  string    `json:"serial"`
	CA      string    `json:"ca"`
	Begun   time.Time `json:"begun"`
	Gone    time.Time `json:"gone,omitzero"`     // not served since then
	Done    time.Time `json:"done,omitzero"`     // zero: it goes on
	Problem string    `json:"problem,omitempty"` // why it is not done yet, or why the CA was not told
}

// Retried is what came of `certs retry`.
type Retried struct {
	Names int `json:"names"` // that are tried again

	// Of a single name that is not tried now: when a budget lets it be, or until when the CAs limit us, or until when it has a certificate and when that will be renewed, or why it was given up.
	Next      time.Time `json:"next_attempt,omitzero"`
	Limited   time.Time `json:"limited_until,omitzero"`
	Serves    time.Time `json:"not_after,omitzero"`
	Renews    time.Time `json:"renew_at,omitzero"`
	Abandoned string    `json:"abandoned,omitempty"`
}
