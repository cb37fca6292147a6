package config

import "testing"

func TestUnbudgeted_IsACAOfOurOwnThatNobodyWroteBudgetsFor(t *testing.T) {
	for directory, want := range map[string]bool{
		"https://127.0.0.1:14000/dir":                    true,
		"https://localhost:14000/dir":                    true,
		"https://pebble:14000/dir":                       true,
		"https://[::1]:14000/dir":                        true,
		"https://10.1.2.3/dir":                           true,
		"https://ca.internal/acme":                       true,
		"https://acme-v02.api.letsencrypt.org/directory": false,
		"https://ca.corp.example/acme":                   false,
		"https://192.0.2.1/dir":                          false,
		"https://[2001:db8::1]/dir":                      false,
	} {
		c := Default()
		ca := CA{Directory: directory}
		c.Issue.Budget.InFlight = 7 // is about our own machine
		if got := c.Unbudgeted(ca); got != want {
			t.Errorf("%s: %v, want %v", directory, got, want)
		}
		c.Issue.Budget.PerTenant.Count++
		if c.Unbudgeted(ca) {
			t.Errorf("%s: the budgets that somebody wrote do not hold", directory)
		}
		ca.DirectoryV1 = "https://acme-v01.api.letsencrypt.org/directory"
		if c.Issue.Budget = Default().Issue.Budget; c.Unbudgeted(ca) {
			t.Errorf("%s: one of two addresses is public", directory)
		}
	}
}
