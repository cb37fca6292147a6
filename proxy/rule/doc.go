// Package rule is what the rules of routes mean: which path a pattern takes and how servers may read it, what a placeholder stands for, which fields of a header may be
// changed. It knows neither requests nor upstreams, so that whoever reads the configuration and whoever obeys it decide by the same code, and can be
// tested without a socket.
package rule
