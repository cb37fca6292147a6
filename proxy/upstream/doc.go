// Package upstream decides who gets a request and brings it there. It knows nothing of hosts and routes.
//
// A [Pool] is an http.RoundTripper to one group of targets. Today a group has one target; balancing, health and retries between several of
// them belong in Pool.pick and leave its callers alone. Every failure is an [Error], which says in which phase it happened: that decides the
// status that the client sees, and later whether another target may be tried.
package upstream
