package devca

import "testing"

// BenchmarkIssue is one certificate without network and validation: three signed requests, the signing of them included.
func BenchmarkIssue(b *testing.B) {
	ca := quietCA(b, Config{})
	p := newPoster(b, ca)
	csr := b64(csrFor(b, newKey(b), "a.localhost"))
	for b.Loop() {
		o := p.post("/v2/new-order", identifiers("a.localhost"))
		makeValid(ca, o)
		done := p.post(o.text("finalize"), map[string]any{"csr": csr})
		if p.post(done.text("certificate"), nil).status != 200 {
			b.Fatalf("not issued: %s", done.raw)
		}
	}
}
