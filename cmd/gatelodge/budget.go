package main

import (
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs"
)

// newBudget is what the configuration bounds of what the fleet orders.
func newBudget(b config.Budget) certs.Budget {
	limit := func(r config.Rate) certs.Limit { return certs.Limit{Count: r.Count, Per: r.Per} }
	return certs.Budget{
		Orders: limit(b.NewOrders), Domain: limit(b.PerRegisteredDomain), Tenant: limit(b.PerTenant), Failures: limit(b.FailuresPerName),
		Reserve: float64(b.ReserveForRenewals) / 100,
	}
}
