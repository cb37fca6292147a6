// Command compare measures gatelodge beside nginx, HAProxy and Caddy: the same machine, certificate, cipher and upstream, one run.
//
//	go run ./cmd/bench/compare                    # all peers that are installed, all rows, about five minutes
//	go run ./cmd/bench/compare -rows h1-1k,h2-1k -rounds 5 -time 3s -log both
//
// The figure that counts is CPU time of the proxy's processes per request (from /proc), because it says how much traffic a machine carries and
// other programs' noise touches it least. Rounds are interleaved (each round takes all peers in turn), and the medians are shown as ratios to the
// peer that -base names. Client and upstream run in this process, whose time is not counted. All traffic stays on loopback. It needs Linux.
//
// conf/ has the peers' configurations: templates, which differ from their defaults only where it makes them comparable (cipher, workers, one
// upstream with kept connections, an access log or none).
package main
