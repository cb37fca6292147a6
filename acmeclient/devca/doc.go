// Package devca is a small ACME CA for trying out and for tests. It speaks RFC 8555 over real HTTP, verifies real JWS, and validates http-01, tls-alpn-01
// and, with a resolver, dns-01 by really connecting. It listens on loopback only and connects to loopback only: nothing it signs is meant to be trusted
// by anybody but the person at the keyboard.
//
// What it leaves out: CRL and OCSP, CAA, multi-perspective validation, alternate chains, pre-authorization, external account binding, durable orders (a
// restart keeps the root, the accounts and the issued certificates; orders and authorizations in progress are gone).
//
// It imports nothing of gatelodge, so that a client tested against it is not tested against itself.
package devca
