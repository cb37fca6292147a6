package proxy

import "net/http"

// StatusOf returns the status of the answer, zero while there is none. See ClientOf about r.
func StatusOf(r *http.Request) int { return exchangeOf(r).status }

// FromTrustedProxy reports whether a proxy that Settings.TrustedProxies names has sent the request, so that what it says about it counts. See ClientOf about r.
func FromTrustedProxy(r *http.Request) bool { return exchangeOf(r).trusted }

// OwnFields says that from now on only the policies decide about these fields of the request, so that the client's trailers do not carry them either. See
// ClientOf about r.
func OwnFields(r *http.Request, names ...string) {
	x := exchangeOf(r)
	x.owned = append(x.owned, names...)
}
