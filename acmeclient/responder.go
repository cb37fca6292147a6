package acmeclient

// Responder answers the CA's challenges (http-01, tls-alpn-01) for all Clients of a process, and for those of other nodes on the same storage.
type Responder struct{}
