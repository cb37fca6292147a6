// Package devca is a small ACME CA for trying out and for tests. It speaks RFC 8555 and Let's Encrypt's protocol before it ("v1") over real HTTP, verifies
// real JWS, and validates http-01, tls-alpn-01 and, with a resolver, dns-01 by really connecting. It listens on loopback only and connects to loopback
// only: nothing it signs is meant to be trusted by anybody but the person at the keyboard.
//
// How a request goes:
//
//  1. The endpoint is found among those that the CA speaks now: v2, v1, or both after an upgrade. (server.go: CA.ServeHTTP)
//  2. Config.Fault may answer in its place. (config.go: Config)
//  3. The signature is checked: strictly over v2, as Boulder did over v1. (jws.go: CA.verify) (v1_jws.go: CA.verifyV1)
//  4. An account is registered. (account.go: CA.serveNewAccount) (v1_account.go: CA.serveNewReg)
//  5. Names are ordered, over v1 authorized one by one. (order.go: CA.serveNewOrder) (v1_authz.go: CA.serveNewAuthz)
//  6. A challenge is answered and validated in the background. (authz.go: CA.serveChallenge) (validate.go: CA.validate)
//  7. The certificate is signed and stored, then handed out. (finalize.go: CA.serveFinalize) (v1_cert.go: CA.serveNewCert) (disk.go: disk)
//
// What it leaves out: CRL and OCSP, CAA, multi-perspective validation, alternate chains, pre-authorization, external account binding, changing terms, durable
// orders (a restart keeps the root, the accounts and the issued certificates; orders and authorizations in progress are gone).
//
// It imports nothing of gatelodge, so that a client tested against it is not tested against itself. What keeps it honest are clients and servers that nobody
// here wrote: today's x/crypto/acme in its tests, x/crypto/acme of 2020 and lego of 2017 in the module oldclients, and recordings of Boulder's v1 service.
package devca
