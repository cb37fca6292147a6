package proxy

import "strconv"

// announce adds what a client is to know about the connection to the header of a final answer, ours or the upstream's.
func (x *exchange) announce() {
	h, secure := x.Header(), x.conn.version != 0
	x.editResponse(h)
	if x.door != nil && x.door.hsts != nil {
		delete(h, "Strict-Transport-Security")
		if secure { // RFC 6797 §7.2: never without TLS, where anybody could have written it
			h["Strict-Transport-Security"] = x.door.hsts
		}
	}
	if x.srv.retiring.Load() {
		x.lastRequest()
	}
	if x.state.altSvc != nil && secure && x.conn.h3 == nil {
		h["Alt-Svc"] = x.state.altSvc
	}
}

// altSvc is what clients over TCP are told about HTTP/3 (RFC 9114 §3.1.1): where it is, for a day, or that it is no more.
func (s *Server) altSvc(st *state, on bool) []string {
	switch {
	case on:
		s.announced = true
		port := st.HTTPSPort
		orDefault(&port, 443)
		return []string{`h3=":` + strconv.Itoa(port) + `"; ma=86400`}
	case s.announced:
		return []string{"clear"}
	}
	return nil
}
