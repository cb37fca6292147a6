package acmeclient

// Client talks to one CA. It owns what concerns the CA: protocol, account, nonces, limits, orders in progress. What concerns a name (its key, its
// failures, when to try again) is the caller's.
type Client struct {
	cfg Config
}

// Request asks for one certificate.
type Request struct {
	Names       []string // DNS names and IP addresses, as in the CSR
	CSR         []byte   // DER
	Predecessor [][]byte // DER chain of the certificate that this one replaces, if this CA issued it
	Profile     string   // empty for the CA's default
}

// Certificate is what the CA issued, checked against the request's key and names.
type Certificate struct {
	Chain    [][]byte // DER, leaf first
	URL      string   // where the CA keeps it
	Order    string   // order URL; empty over v1
	Account  string   // account URL
	Protocol Protocol // ProtocolV2 or ProtocolV1
}
