package proxy

import (
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"slices"

	"gatelodge/proxy/rule"
)

// Headers changes fields of requests on their way to the upstream and of answers on their way to the client. Names are taken in any case.
type Headers struct {
	// Set are fields of the request, in place of whatever the client sent under the name. {host} is the canonical host that is asked for, {client.ip} the client's
	// address, {request.id} the id of the request, {ask.tenant} what the permission of an on-demand name said about its tenant. A value that comes out
	// empty removes the field.
	Set map[string]string

	// Remove are fields of the request and of the answer.
	Remove []string

	// SetResponse are fields of the answer, with the same placeholders, and RemoveResponse fields of the answer alone. Answers of our own are changed too.
	SetResponse    map[string]string
	RemoveResponse []string
}

// edits is a Headers that is ready; nil changes nothing.
type edits struct {
	request, response             []fieldValue
	removeRequest, removeResponse []string
}

type fieldValue struct {
	name  string
	value rule.Template
}

// newEdits checks changes of the header.
func newEdits(h *Headers) (*edits, error) {
	if h == nil || len(h.Set)+len(h.Remove)+len(h.SetResponse)+len(h.RemoveResponse) == 0 {
		return nil, nil
	}
	var errs []error
	set := func(fields map[string]string, owned func(string) bool) (made []fieldValue) {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			value, err := rule.ParseField(name, fields[name], owned)
			errs = append(errs, err)
			made = append(made, fieldValue{textproto.CanonicalMIMEHeaderKey(name), value})
		}
		return made
	}
	remove := func(names []string, owned func(string) bool) (made []string) {
		for _, name := range names {
			errs = append(errs, rule.CheckFieldName(name, owned))
			made = append(made, textproto.CanonicalMIMEHeaderKey(name))
		}
		return made
	}
	e := &edits{
		request: set(h.Set, ownsRequestField), response: set(h.SetResponse, rule.OwnsResponseField),
		removeRequest: remove(h.Remove, ownsRequestField), removeResponse: remove(append(slices.Clone(h.Remove), h.RemoveResponse...), rule.OwnsResponseField),
	}
	return e, errors.Join(errs...)
}

// ownsRequestField reports whether the field of a request is this proxy's own word, or about framing or the connection.
func ownsRequestField(name string) bool {
	return rule.OwnsRequestField(name) || name == clientCertField || name == clientCertChainField
}

// editRequest changes the header of the request as site and route say.
func (x *exchange) editRequest(h http.Header) {
	for _, e := range x.edits {
		if e == nil {
			continue
		}
		for _, name := range e.removeRequest {
			delete(h, name)
		}
		x.setFields(h, e.request)
	}
}

// editResponse changes the header of the answer as site and route say.
func (x *exchange) editResponse(h http.Header) {
	for _, e := range x.edits {
		if e == nil {
			continue
		}
		for _, name := range e.removeResponse {
			delete(h, name)
		}
		x.setFields(h, e.response)
	}
}

func (x *exchange) setFields(h http.Header, fields []fieldValue) {
	for _, f := range fields {
		if v := f.value.Expand(x.said); v != "" && rule.IsFieldValue(v) {
			h[f.name] = []string{v}
		} else {
			delete(h, f.name)
		}
	}
}

// said is the value of a placeholder in a field.
func (x *exchange) said(name string) string {
	switch name {
	case "host":
		return x.host
	case "client.ip":
		if x.client.IsValid() {
			return x.client.String()
		}
	case "request.id":
		return x.id
	case "ask.tenant":
		return x.customer().Tenant
	}
	return ""
}

// mayTrail reports whether a field may stand in the trailer of the request: one that the site, the route or a policy has a word in does not come in by the
// back door.
func (x *exchange) mayTrail(name string) bool {
	_, said := x.r.Header[name]
	return !said && mayTrail(name) && !x.decides(name)
}

// decides reports whether site, route or a policy has a say about the field of a request.
func (x *exchange) decides(name string) bool {
	for _, own := range x.owned {
		if rule.SameVariable(name, own) {
			return true
		}
	}
	for _, e := range x.edits {
		if e != nil && (slices.Contains(e.removeRequest, name) || slices.ContainsFunc(e.request, func(f fieldValue) bool { return f.name == name })) {
			return true
		}
	}
	return false
}
