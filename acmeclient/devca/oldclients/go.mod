// A module of its own, so that the versions of 2017 and 2020 stay out of gatelodge's. Run: cd acmeclient/devca/oldclients && go test ./...
module gatelodge/acmeclient/devca/oldclients

go 1.26.0

require (
	gatelodge v0.0.0
	github.com/xenolf/lego v0.4.1
	golang.org/x/crypto v0.58.0
)

require (
	github.com/go-jose/go-jose/v4 v4.1.8 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	gopkg.in/square/go-jose.v1 v1.1.2 // indirect
)

replace gatelodge => ../../..

// gatelodge itself asks for a newer one, without which devca builds as well.
replace golang.org/x/crypto => golang.org/x/crypto v0.0.0-20200622213623-75b288015ac9

// lego v0.4.1 uses dns.ErrTruncated, which later versions no longer have.
replace github.com/miekg/dns => github.com/miekg/dns v1.0.15
