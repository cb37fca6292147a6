package proxy

// announce adds what a client is to know about the connection to the header of a final answer, ours or the upstream's.
func (x *exchange) announce() {
	if x.door == nil || x.door.hsts == nil {
		return
	}
	h := x.Header()
	delete(h, "Strict-Transport-Security")
	if x.conn.version != 0 { // RFC 6797 §7.2: never without TLS, where anybody could have written it
		h["Strict-Transport-Security"] = x.door.hsts
	}
}
