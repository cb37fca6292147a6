// Package oldclients holds no code, only tests: ACME clients of the time of v1, which nobody here wrote, judge devca's v1 dialect.
//
// They are golang.org/x/crypto/acme of June 2020, the last but few that could speak v1, and github.com/xenolf/lego v0.4.1 of 2017.
package oldclients
