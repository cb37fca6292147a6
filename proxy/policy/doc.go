// Package policy is what a site or a route asks of a request before it goes on to the upstream, and what it does to the answer on its way back. A policy is
// built once from a Config, which is checked whole, and wraps a handler:
//
//	limit, err := policy.NewLimit(policy.LimitConfig{Rate: 100, Burst: 200, Client: clientOf})
//	handler := limit.Wrap(next)
//
// It decides from the http.Request alone, keeps nothing of it after the handler returned, and starts nothing that outlives it. Whatever is particular to the
// proxy, such as the address of the client behind trusted proxies, it gets by small functions of its Config.
//
// The order in which policies are wrapped is their caller's, cheapest refusal outermost: [Networks], [Limit], [Basic], [Forward], and innermost [Compress], which only touches
// answers that got so far. A refused request does not reach the next handler; it is answered by the [Refuse] of the Config.
//
// # Why a room of its own
//
// The proxy reads requests that anybody can write, and a policy is what stands between those requests and what it protects. In a room that imports neither the
// proxy nor anything else of ours but the leaf rule a policy can be read, tested and replaced by itself, and no convenience of the proxy's insides can become part
// of a security decision.
package policy
