// Package permission decides whether a stranger's name may have a certificate: a file lists the names (NamesFile), or an endpoint of the operator's is asked (Ask), which
// also says whose they are and where their requests go. Both are permissions as proxy/certs wants them.
package permission

import "errors"

// ErrDenied is wrapped by a refusal.
var ErrDenied = errors.New("certs: no certificate is wanted for this name")
