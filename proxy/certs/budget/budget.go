// Package budget bounds how often something may happen in a fleet of processes that share a store: orders of an account, names of one domain. It knows neither
// certificates nor CAs; proxy/certs says what is charged to whom.
//
// A process takes a block from the fleet's ledger in storage by compare-and-swap (ledger.go), spends it from memory, and gives back what is left (purse.go).
package budget

import (
	"fmt"
	"time"
)

// Limit is a count within any time of that length. A Count of zero means no limit.
type Limit struct {
	Count int
	Per   time.Duration
}

func (l Limit) String() string { return fmt.Sprintf("%d in %s", l.Count, l.Per) }

// Charge is one budget that something counts against.
type Charge struct {
	Budget  string // as the configuration calls it
	Account string // whose, in storage
	Subject string // whose, for a person
	Object  string // the ledger in storage; all accounts in it are of one Budget
	Limit   Limit
	Reserve int  // of Limit, that is left to renewals
	Renewal bool // it may spend the reserve
}

// Error says that something would go beyond a budget.
type Error struct {
	Budget  string // as the configuration calls it
	Subject string // whose, for a person
	Limit   Limit
	Next    time.Time // there should be room again
	Again   time.Time // it is worth looking again, not after Next: another process may have given something back
}

func (e *Error) Error() string {
	return fmt.Sprintf("the budget issue.budget.%s of %s is used up (%s), there may be room at %s", e.Budget, e.Subject, e.Limit, e.Next.UTC().Format(time.RFC3339))
}
