package proxy

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// maxPasses is how often a request may come through this process: a cache or another proxy may stand between two of our sites. More than that is a loop, which
// would go on until something breaks.
const maxPasses = 3

// newVia makes up a name for this process, and returns it as Via wants it (RFC 9110 §7.6.3): with each version of HTTP in which requests come. Our real name would
// help nobody, and a fixed one could not tell us from another gatelodge.
func newVia() (via [4][]string) {
	name := "gatelodge-" + strings.ToLower(rand.Text()[:12])
	for major, version := range [...]string{"1.0 ", "1.1 ", "2.0 ", "3.0 "} {
		via[major] = []string{version + name}
	}
	return via
}

// loops reports whether the request has been here too often.
func (x *exchange) loops() bool {
	fields := x.r.Header["Via"]
	if len(fields) == 0 {
		return false
	}
	_, name, _ := strings.Cut(x.srv.via[1][0], " ")
	passes := 0
	for _, field := range fields {
		passes += strings.Count(field, name)
	}
	return passes >= maxPasses
}

// setVia adds our name to the proxies that the request came through.
func (x *exchange) setVia(h http.Header) {
	version := 0 // HTTP/1.0
	if x.r.ProtoAtLeast(1, 1) {
		version = min(x.r.ProtoMajor, 3)
	}
	own := x.srv.via[version]
	if before := h["Via"]; len(before) > 0 && len(own) > 0 {
		own = []string{strings.Join(before, ", ") + ", " + own[0]}
	}
	h["Via"] = own
}

// stopsHere reports whether the client wants the answer of this hop, and counts its Max-Forwards down otherwise (RFC 9110 §7.6.2). What is no number is nobody's limit.
func (x *exchange) stopsHere() bool {
	field := x.r.Header["Max-Forwards"]
	if len(field) != 1 || x.r.Method != http.MethodOptions && x.r.Method != http.MethodTrace {
		return false
	}
	left, err := strconv.ParseUint(field[0], 10, 31)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // beyond the range it is the greatest there is
		return false
	}
	if left == 0 {
		return true
	}
	x.r.Header["Max-Forwards"] = []string{strconv.FormatUint(left-1, 10)}
	return false
}

// answerHop answers what stops here as the final recipient. The client's own fields are not shown to it, as TRACE would: scripts must not get at its cookies.
func (x *exchange) answerHop() {
	if x.r.Method == http.MethodTrace {
		x.refuse(&fault{http.StatusNotImplemented, "TRACE for this hop"})
		return
	}
	x.out.Header()["X-Request-Id"] = []string{x.id}
	x.out.WriteHeader(http.StatusNoContent)
}
