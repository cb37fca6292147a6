package acmeclient

import (
	"context"
	"net/http"
	"net/url"
)

// Labels of requests in Metrics.
const (
	endpointDirectory   = "directory"
	endpointNewNonce    = "newNonce"
	endpointNewAccount  = "newAccount"
	endpointAccount     = "account"
	endpointKeyChange   = "keyChange"
	endpointRevoke      = "revokeCert"
	endpointRenewalInfo = "renewalInfo"
	endpointNewOrder    = "newOrder"
	endpointOrder       = "order"
	endpointAuthz       = "authorization"
	endpointChallenge   = "challenge"
	endpointFinalize    = "finalize"
	endpointCertificate = "certificate"
)

// exchange is what one operation tells the wire about itself, and what the wire learnt from the CA's last answer to it. It travels in the context, because
// x/crypto/acme, which sits between, keeps most of an answer to itself. One operation has one goroutine, so there is no lock.
type exchange struct {
	endpoint string // for metrics
	direct   bool   // send it: nothing is answered from what the wire knows

	// nonces is where the answer's nonce goes; nil: to those of v2.
	nonces *noncePool

	// directory is what x/crypto/acme is told when it asks for the directory, which it does in each operation; nil: its request is sent.
	directory *directory

	status    int         // 0: no answer
	url       *url.URL    // of the request that was answered last
	header    http.Header // of the answer
	nonce     string      // of the answer, for the newNonce request only
	problem   document    // if isProblem
	isProblem bool        // the answer was an error with a problem document
}

type exchangeKey struct{}

func withExchange(ctx context.Context, ex *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, ex)
}

// exchangeOf returns the operation's exchange; a request without one gets its own.
func exchangeOf(ctx context.Context) *exchange {
	if ex, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return ex
	}
	return &exchange{}
}

// location returns the absolute URL of the answer's Location field.
func (ex *exchange) location() (string, error) { return resolve(ex.url, ex.header.Get("Location")) }
