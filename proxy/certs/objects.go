package certs

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// Where things lie in storage. Nothing here is listed while we run; every object is found by its name.
//
//	certs/<name>      chain, key and metadata of a certificate, one object (storage.Bundle)
//	pending/<name>    key and CSR of an order, stored before the CA is asked
//	failures/<name>   what went wrong last, and when to try again
//	index/<NN>        which names have a certificate, when it ends, what its CA said: for the planner
//	members           the processes that share the planning
//	budget/<kind>/... what the fleet has ordered lately (see budget/ledger.go)
//	hot               which certificates visitors were served with in the last hour (see hotlist.go)
//	issue/<name>      the lease of whoever orders (leases have a space of their own)
//	revocations       which certificates must not be served (see revocation.go)
//	revoking/<sum>    chain and key of one of them, until its CA was told
//	revoke/<name>     the lease of whoever sees to that
//	blocked_keys/<sum>  a key that others know (see blocked.go)
func certObject(name string) string      { return "certs/" + fileName(name) }
func pendingObject(name string) string   { return "pending/" + fileName(name) }
func failureObject(name string) string   { return "failures/" + fileName(name) }
func issueLease(name string) string      { return "issue/" + fileName(name) }
func revokingObject(leaf leafSum) string { return "revoking/" + leaf.String() }
func revokeLeaseName(name string) string { return "revoke/" + fileName(name) }
func indexObject(shard int) string       { return fmt.Sprintf("index/%02d", shard) }

// ledgerShards is how many ledgers there are for domains of a CA, and for tenants: accounts are small and short-lived, so objects of their own would be garbage.
const ledgerShards = 64

// ledgerObject is where the budget's account is counted: orders of a CA by themselves, domains and tenants many to an object.
func ledgerObject(budget, account string) string {
	if budget == budgetOrders {
		return "budget/" + budget + "/" + account
	}
	return fmt.Sprintf("budget/%s/%02d", budget, hash64(account)%ledgerShards)
}

// fileName writes a wildcard's star as "_", which is a label that no certificate can have (see sane).
func fileName(name string) string {
	if strings.HasPrefix(name, "*.") {
		return "_" + name[1:]
	}
	return name
}

// indexShards is how many objects the index has: 64 reads at start, and 16,000 names or 2 MB in each at a million names.
const indexShards = 64

func indexShard(name string) int { return int(hash64(name) % indexShards) }

// hash64 is the same in every process and version, since objects and times depend on it.
func hash64(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return mix(h.Sum64())
}

// mix spreads the bits (the finaliser of MurmurHash3): FNV's upper bits hardly change between short similar names.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// fraction is a number in [0, 1) that is spread evenly over its parts and always the same for them.
func fraction(parts ...string) float64 { return float64(hash64(parts...)>>11) / (1 << 53) }
