// Package proxy is the life of a request: it accepts connections, shakes hands, finds the site, forwards to its upstream, and writes down
// what happened. It knows neither certificates nor CAs: both come in through two functions of [Config].
//
// # Life of a request
//
//  1. A connection is accepted and counted; from now on somebody owns it (accept.go: Server.accept, Server.newConn). Where a balancer stands in front, its
//     PROXY protocol header says whose connection it is (introduce.go: Server.introduce), (proxyheader.go: ProxyProtocol.parse). QUIC connections come in by UDP
//     and join here (http3.go: http3Engine.accepted).
//  2. With TLS, if its client has not had too many already (handshakelimit.go: clientRate.take), the handshake chooses the site from the SNI, once, by the one
//     lookup that routing uses too, and asks for the certificate, and for the client's own if the site's policy says so. An unknown name gets the alert
//     unrecognized_name, unless Settings say otherwise; a CA's acme-tls/1 ends after the handshake
//     (handshake.go: Server.shakeHands, Server.baseConfig, conn.settle, Server.newDoor, Server.getCertificate), (clientauth.go: clientPolicy.apply). Session
//     tickets are bound to the site and its policy (tickets.go: Server.bindTickets). If the site's TLS is somebody else's, the connection goes there as it is,
//     the ClientHello first, and this is the end of the story (passthrough.go: Server.passThrough).
//  3. net/http reads the request, for HTTP/1.1 through a guard that refuses what could be read in two ways
//     (server.go: Server.newHTTP1, Server.newHTTP2), (h1conn.go: h1Conn.Read, h1Conn.refusal), (guard.go: guard.check); for HTTP/3 it is quic-go
//     (http3.go: http3Engine.serve), (h3conn.go: h3Conn.serveHTTP).
//  4. The request becomes an exchange with the settings of this moment, which it keeps across a reload, with an id, and with the address of whoever asks
//     (exchange.go: Server.serveHTTP), (requestid.go: exchange.identify).
//  5. What is no proper request goes no further: the host above all, then the target, CONNECT, and what HTTP/2 and HTTP/3 forbid (check.go: exchange.check).
//  6. Without TLS, a CA's challenge is answered and everything else sent to https, if Settings say so (route.go: Server.servePlain).
//  7. The host's site must be the one that the handshake chose, under the policy of that moment, else 421; and a connection for a name that was permitted for
//     itself alone carries requests for no other (route.go: exchange.route, exchange.belongs), (site.go: Table.Site).
//     Within a site with routes the first that takes the request's canonical path has it; policies, made elsewhere, are around what the route does
//     (way.go: exchange.within, exchange.choose, serveAction), by the rules of package rule.
//     What it does may be to redirect, to answer from files, or always the same (action.go: exchange.act), (files.go: exchange.serveFiles).
//  8. The request is made fit for the upstream: hop-by-hop fields and what only a proxy may say are deleted, then our own word is set; the body is counted, must come
//     at a certain pace, and can be ended by us at any time (pace.go: pace.begin), (forward.go: exchange.outgoing), (headers.go: cleanRequestHeader), (forwarded.go: exchange.setForwarded), (body.go: requestBody.Read).
//     What site and route say about fields comes last (edit.go: exchange.editRequest). A request that came through us too often goes in a circle, and ends
//     here, as does one whose Max-Forwards says so (via.go: exchange.loops, exchange.stopsHere).
//  9. The RoundTripper of the route, of the customer whose name it is, or of the site takes it, usually an upstream.Pool (way.go: exchange.upstreamTo),
//     (customer.go: customerPools.get); 1xx answers pass on the way (forward.go: exchange.forward, informer.informational).
//  10. The answer goes to the client piece by piece as it comes, trailers last; if it breaks off, the client sees that (respond.go: exchange.respond, exchange.copyBody, exchange.cut).
//     Its header says in addition that the site is to be had by TLS alone, and that there is HTTP/3, if so (announce.go: exchange.announce).
//     A 101 makes the two connections a tunnel instead (upgrade.go: exchange.switchProtocols), or the
//     stream on which a client of HTTP/2 or HTTP/3 opened a WebSocket and the upstream's connection (connect.go: exchange.endConnect).
//  11. A failure becomes a status with the request id and no detail; whose fault it was decides which (answer.go: exchange.upstreamFailed, exchange.clientFailed), (errorpage.go: errorPage).
//  12. The exchange ends: panics stop here, the body is let go, one line goes into the access log (exchange.go: exchange.end), (accesslog.go: exchange.record).
//
// Shutdown begins at the listeners and waits for step 12 of all (server.go: Server.Shutdown). Where another process goes on with the same sockets, these are passed to it
// before (listen.go: Sockets.Pass), and connections come to their end at leisure (leave.go: Server.Leave).
//
// # What the engines hide
//
// The engines below step 3 are net/http and quic-go for now. Known holes until there are loops of our own:
//
//   - HTTP/2: "Expect: 100-continue" is taken from the request and answered when the body is first read, so the upstream does not decide (RFC 9110 §10.1.1).
//   - HTTP/2: h2spec's four known misses of Go's server, of which connection-specific fields are refused in step 5 (RFC 9113 §8.2.2).
//   - HTTP/2: WebSockets on a stream (RFC 8441) are offered only if the environment has GODEBUG=http2xconnect=1 when net/http is initialized; cmd/internal/xconnect sees to it.
//   - HTTP/2: field names and values are judged by net/http alone (space around a value passes), and a stream with a closed window may hold its goroutine as long as
//     the connection answers PINGs. Frames that bring nothing (SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown types) are bounded by the bytes of the connection,
//     since only the engine sees them (h2budget.go: h2Budget.take).
//   - Both: a 304 loses Content-Type and Content-Length, and every answer without Date gets one.
//   - Answers of HTTP/1.1 upstreams: a Connection field that contains "close" is removed before we can see what else it names (RFC 9110 §7.6.1); bare LF in the
//     header is taken for CRLF. What else could be read in two ways is refused, and what comes behind an answer is given to nobody (upstream/framing.go).
//   - HTTP/2 and HTTP/3: a malformed header, and 431, are answered by net/http or quic-go: no access log, no request id.
//   - HTTP/3: a header that comes slowly is bounded by the connection's time without requests alone, not by Limits.HeaderTimeout; content-length that is
//     there twice with the same value, or empty, is repaired instead of refused (RFC 9114 §4.1.2), and :scheme may be anything or missing (§4.3.1).
package proxy
