package devca

import (
	"fmt"
	"net/http"
)

// namespaceV2 goes before a problem's type (RFC 8555 §6.7).
const namespaceV2 = "urn:ietf:params:acme:error:"

// problem is an error that the client is told (RFC 7807). Inside the CA its Type is without namespace, since that depends on the dialect.
type problem struct {
	Type        string      `json:"type"`
	Detail      string      `json:"detail"`
	Status      int         `json:"status,omitempty"`
	Algorithms  []string    `json:"algorithms,omitempty"`  // badSignatureAlgorithm, RFC 8555 §6.2
	Identifier  *identifier `json:"identifier,omitempty"`  // only within Subproblems, RFC 8555 §6.7.1
	Subproblems []problem   `json:"subproblems,omitempty"` // one per identifier

	header http.Header // sent along, may be nil
}

func (p *problem) Error() string { return p.Type + ": " + p.Detail }

// in returns a copy with the types in a namespace, for sending.
func (p *problem) in(namespace string) *problem {
	if p == nil {
		return nil
	}
	q := *p
	q.Type = namespace + p.Type
	q.Subproblems = nil
	for i := range p.Subproblems {
		q.Subproblems = append(q.Subproblems, *p.Subproblems[i].in(namespace))
	}
	return &q
}

func (p *problem) with(key, value string) *problem {
	if p.header == nil {
		p.header = make(http.Header)
	}
	p.header.Add(key, value)
	return p
}

// newProblem formats the detail. Foreign text in it must be quoted by %q.
func newProblem(status int, kind, format string, args ...any) *problem {
	return &problem{Type: kind, Status: status, Detail: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "malformed", format, args...)
}

func unauthorized(format string, args ...any) *problem {
	return newProblem(http.StatusForbidden, "unauthorized", format, args...)
}

func notFound(format string, args ...any) *problem {
	return newProblem(http.StatusNotFound, "malformed", format, args...)
}
