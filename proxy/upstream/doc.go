// Package upstream decides who gets a request and brings it there. It knows nothing of hosts and routes.
//
// A [Pool] is an http.RoundTripper to one group of targets. Every failure is an [Error], which says in which phase it happened: that decides the status that
// the client sees, and whether another target may be tried.
//
// # Life of a request in a Pool
//
//  1. Names whose addresses are too old are looked up again, beside the request (resolve.go: Pool.refresh, Pool.settle).
//  2. An endpoint is chosen: the one that the client's cookie names (sticky.go: choice.stuck), else by the balance (balance.go: Pool.pick, choice.balance),
//     among those that their probes (health.go: Pool.probeAll, Pool.judge) and their breakers (passive.go: endpoint.closed, endpoint.claim) leave. If all have as
//     many requests as they may, the request waits in a queue (queue.go: Pool.acquire, Pool.admit).
//  3. The endpoint's transport sends it and waits for the header of the answer (pool.go: Pool.try), (transport.go: newTransports). Over HTTP/1.1
//     the connection gives out the answer to this request and not a byte more, and nothing that could be read in two ways (framing.go: guardedConn.Read,
//     framing.take). What is no proper answer costs the connection (pool.go: check).
//  4. The outcome counts for or against the endpoint (passive.go: Pool.worked, Pool.failed).
//  5. If the rules and the budget permit, another endpoint gets the request (retry.go: Pool.next, Pool.repeats, budget.withdraw).
//  6. The answer goes to the caller; the end of its body is the end of the request at the endpoint (pool.go: Pool.follow, body.Read, Pool.Close),
//     (queue.go: Pool.release).
package upstream
