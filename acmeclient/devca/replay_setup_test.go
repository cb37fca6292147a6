package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyFor makes a key like the recorded one and binds what of it shows in answers: its members and its thumbprint.
func (r *replayer) keyFor(t *testing.T, jwk *jose.JSONWebKey, recorded []byte) crypto.Signer {
	t.Helper()
	thumb := thumbprint(jwk)
	if k, ok := r.keys[thumb]; ok {
		return k
	}
	var key crypto.Signer
	var err error
	switch pub := jwk.Key.(type) {
	case *ecdsa.PublicKey:
		key, err = ecdsa.GenerateKey(pub.Curve, rand.Reader)
	case *rsa.PublicKey:
		if pub.N.BitLen() < 1536 {
			return unusableKey{&rsa.PublicKey{N: weakModulus(t), E: 65537}}
		}
		key, err = rsa.GenerateKey(rand.Reader, pub.N.BitLen())
	default:
		t.Fatalf("recorded key is %T", pub)
	}
	must(t, err)
	r.keys[thumb] = key
	must(t, r.m.bind(thumb, thumbprint(&jose.JSONWebKey{Key: key.Public()})))
	var theirs, ours map[string]string
	must(t, json.Unmarshal(recorded, &theirs))
	must(t, json.Unmarshal(jwkOf(t, key.Public()), &ours))
	for _, member := range []string{"x", "y", "n"} {
		if theirs[member] != "" {
			must(t, r.m.bind(theirs[member], ours[member]))
		}
	}
	return key
}

// unusableKey is refused before its signature is looked at.
type unusableKey struct{ pub *rsa.PublicKey }

func (k unusableKey) Public() crypto.PublicKey { return k.pub }
func (k unusableKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 128), nil
}

// signAny signs by the algorithm that goes with the key, whatever the header says.
func signAny(t *testing.T, key crypto.Signer, head map[string]any, payload []byte) flattened {
	t.Helper()
	f := flattened{Protected: b64(encodeJSON(t, head)), Payload: b64(payload)}
	h, size := crypto.SHA256, 64
	if k, ok := key.Public().(*ecdsa.PublicKey); ok {
		switch k.Curve {
		case elliptic.P384():
			h, size = crypto.SHA384, 96
		case elliptic.P521():
			h, size = crypto.SHA512, 132
		}
	}
	var digest hash.Hash = h.New()
	digest.Write([]byte(f.Protected + "." + f.Payload))
	sig, err := key.Sign(rand.Reader, digest.Sum(nil), h)
	must(t, err)
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		sig = ecdsaFixed(t, sig, size)
	}
	f.Signature = b64(sig)
	return f
}

// setUp does what had happened before a flow's first recorded exchange: registrations, authorizations and certificates that the exchanges take for granted.
func (r *replayer) setUp(t *testing.T, rec recording) {
	t.Helper()
	for i, e := range rec.Exchanges {
		id, ok := e.Response.Headers["Boulder-Requester"].(string)
		if ok && e.Request.JWS != nil && e.Response.Status != 201 || ok && !strings.HasSuffix(e.Request.URL, "/new-reg") && !strings.HasSuffix(e.Request.URL, "/new-acct") {
			r.registerBefore(t, rec, i, id)
		}
	}
	switch rec.Flow {
	case "09-key-change":
		last := rec.Exchanges[len(rec.Exchanges)-1] // to a key that another registration has
		r.registerDirectly(t, r.innerKey(t, last.Request.JWS), nil)
	case "22-error-unauthorized":
		other := r.registerDirectly(t, newKey(t), nil)
		z := r.authorizeDirectly(other.ID, "somebody.else.com", statusPending)
		must(t, r.m.bind("/chall-v3/15/hdYVeQ", "/chall-v3/"+formatID(z.id)+"/"+z.challenges[0].id))
	case "31-end-of-life-switches":
		acct := r.accountOf(t, "44")
		r.authorizeDirectly(acct.ID, "v1-99bee88f67.com", statusValid)
		_, err := r.ca.issue(acct.ID, 0, []identifier{{identDNS, "v1-99bee88f67.com"}}, newKey(t).Public(), time.Hour)
		must(t, err)
		r.ca.SetV1(V1Switches{NoNewRegistrations: true, NoNewNames: true})
		t.Cleanup(func() { r.ca.SetV1(V1Switches{}) })
	}
}

// innerKey is ours for the new key of a recorded key change.
func (r *replayer) innerKey(t *testing.T, j *recordedJWS) crypto.Signer {
	t.Helper()
	var outer flattened
	must(t, json.Unmarshal(j.Payload, &outer))
	data, err := base64.RawURLEncoding.DecodeString(outer.Protected)
	must(t, err)
	var head struct {
		JWK map[string]any `json:"jwk"`
	}
	must(t, json.Unmarshal(data, &head))
	return r.key(t, head.JWK)
}

// registerBefore makes the account of a recorded requester unless it is known or is going to be made by the flow itself.
func (r *replayer) registerBefore(t *testing.T, rec recording, at int, id string) {
	t.Helper()
	if _, known := r.m.ours["/reg/"+id]; known {
		return
	}
	for _, e := range rec.Exchanges[:at] {
		if e.Response.Status == 201 && e.Response.Headers["Boulder-Requester"] == id {
			return
		}
	}
	jwk, _ := rec.Exchanges[at].Request.JWS.Protected["jwk"].(map[string]any)
	if jwk == nil {
		jwk, _ = rec.Exchanges[at].Request.JWS.Header["jwk"].(map[string]any)
	}
	a := r.registerDirectly(t, r.key(t, jwk), contactOf(rec, id))
	must(t, r.m.bind("/reg/"+id, "/reg/"+formatID(a.ID)))
}

// contactOf looks ahead for the account's contacts.
func contactOf(rec recording, id string) []string {
	for _, e := range rec.Exchanges {
		var reg struct {
			ID      json.Number `json:"id"`
			Contact []string    `json:"contact"`
		}
		if json.Unmarshal(e.Response.Body, &reg) == nil && reg.ID.String() == id {
			return reg.Contact
		}
	}
	return nil
}

func (r *replayer) registerDirectly(t *testing.T, key crypto.Signer, contact []string) *account {
	t.Helper()
	a, _, err := r.ca.addAccount(&account{
		Key: jose.JSONWebKey{Key: key.Public()}, Status: statusValid, Contact: contact, Terms: r.m.base + termsPath,
		InitialIP: "127.0.0.1", CreatedAt: time.Now().UTC().Truncate(time.Second),
	})
	must(t, err)
	return a
}

func (r *replayer) accountOf(t *testing.T, recordedID string) *account {
	t.Helper()
	for id := range int64(1000) {
		if r.m.ours["/reg/"+recordedID] == "/reg/"+formatID(id) {
			return r.ca.state.account(id)
		}
	}
	t.Fatalf("account %s is not known", recordedID)
	return nil
}

func (r *replayer) authorizeDirectly(acct int64, name, status string) *authorization {
	r.ca.state.mu.Lock()
	defer r.ca.state.mu.Unlock()
	z := r.ca.state.newAuthorizationLocked(acct, identifier{identDNS, name}, r.ca.challengeKinds(), time.Now())
	z.status, z.expires = status, time.Now().Add(validAuthzLifetime)
	if status == statusValid {
		ch := z.challenges[slices.IndexFunc(z.challenges, func(c *challenge) bool { return c.kind == challengeHTTP })]
		ch.status, ch.validated = statusValid, time.Now()
		ch.record = []validationRecord{{
			URL: "http://" + name + "/.well-known/acme-challenge/" + z.token, Hostname: name, Port: "80", Resolved: []string{"127.0.0.1"}, Used: "127.0.0.1",
		}}
	}
	return z
}

// before arranges what a step's answer depends on outside of the protocol.
func (r *replayer) before(t *testing.T, flow string, e exchange) {
	t.Helper()
	if e.Request.JWS != nil && strings.Contains(string(e.Request.JWS.Payload), `"resource":"challenge"`) && e.Response.Status == 202 {
		r.settle(t)
		r.gate.shut()
		r.publish(t, e)
		return
	}
	var state struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(e.Response.Body, &state); err == nil && e.Request.Method == "GET" && state.Status == statusPending {
		return // still under validation at the recording
	}
	r.settle(t)
	switch {
	case flow == "26-expired-authz" && e.Step == "GET it":
		r.changeAuthz(t, e.Request.URL, func(z *authorization) { z.expires = time.Now().Add(-time.Minute) })
	case flow == "28-rate-limits" && strings.HasPrefix(e.Step, "certificate "):
		r.authorizeNames(t, e)
	case flow == "28-rate-limits" && strings.HasPrefix(e.Step, "authorization "):
		r.failPending()
	case flow == "08-revoke" && strings.Contains(e.Step, "another account that has a valid authorization"):
		r.authorizeDirectly(r.accountOf(t, "17").ID, "v1-e4bd1bca60.com", statusValid)
	}
}

func (r *replayer) changeAuthz(t *testing.T, recordedURL string, change func(*authorization)) {
	t.Helper()
	url := r.m.toOurs(recordedURL)
	r.ca.state.mu.Lock()
	defer r.ca.state.mu.Unlock()
	for _, z := range r.ca.state.authzs {
		if strings.HasSuffix(url, "/authz-v3/"+formatID(z.id)) {
			change(z)
			return
		}
	}
	t.Fatalf("no authorization %s", url)
}

// failPending ends all pending authorizations, as the failing name's did between the recorded steps.
func (r *replayer) failPending() {
	r.ca.state.mu.Lock()
	defer r.ca.state.mu.Unlock()
	for _, z := range r.ca.state.authzs {
		if z.status == statusPending {
			z.status = statusInvalid
		}
	}
}

// authorizeNames gives the signer of a new-cert request what it needs.
func (r *replayer) authorizeNames(t *testing.T, e exchange) {
	t.Helper()
	var p struct {
		CSR string `json:"csr"`
	}
	must(t, json.Unmarshal(e.Request.JWS.Payload, &p))
	der, err := base64.RawURLEncoding.DecodeString(p.CSR)
	must(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	must(t, err)
	acct := r.accountOf(t, e.Response.Headers["Boulder-Requester"].(string))
	for _, name := range csr.DNSNames {
		r.authorizeDirectly(acct.ID, name, statusValid)
	}
}

// rateLimit has the thresholds of the recorded server in the one flow about them.
func (r *replayer) rateLimit(endpoint string, names []string) *Limit {
	for _, name := range names {
		base := name[strings.IndexByte(name, '.')+1:]
		switch {
		case endpoint == "new-cert" && base == "v1-74118d2f90.com":
			if r.limits[base]++; r.limits[base] > 2 {
				return &Limit{Detail: "too many certificates already issued for: " + base + ": see https://letsencrypt.org/docs/rate-limits/"}
			}
		case endpoint == "new-authz" && name == "v1-2c1311b37e.com":
			if r.limits[name]++; r.limits[name] > 3 {
				return &Limit{Detail: "too many failed authorizations recently: see https://letsencrypt.org/docs/rate-limits/"}
			}
		}
	}
	return nil
}

// publish puts up what the validation is to find, which in flow 24 is something wrong.
func (r *replayer) publish(t *testing.T, e exchange) {
	t.Helper()
	url := r.m.toOurs(e.Request.URL)
	r.ca.state.mu.Lock()
	z, ch, err := r.ca.challengeV1Locked(url[strings.Index(url, "/chall-v3/")+len("/chall-v3/"):])
	r.ca.state.mu.Unlock()
	must(t, err)
	name := z.ident.Value
	keyAuth := z.token + "." + thumbprint(&r.ca.state.account(z.account).Key)
	file := name + "/.well-known/acme-challenge/" + z.token
	r.site.mu.Lock()
	defer r.site.mu.Unlock()
	switch what := strings.SplitN(e.Step, ":", 2)[0]; {
	case what == "http-01, 404", what == "dns-01, no TXT", what == "tls-alpn-01, no certificate for the name":
	case what == "http-01, wrong body":
		r.site.files[file] = "wrong"
	case what == "no key authorization at all":
		r.site.files[file] = "\n" // the recorded site's file was empty
	case what == "http-01, nobody listens":
		must(t, r.ca.SetTargets(closedPort(t), r.site.tlsAddr))
	case what == "dns-01, wrong TXT":
		r.setText(name, "wrong")
	case what == "tls-alpn-01, another token's certificate":
		r.site.certs[name] = alpnCertificate(t, &x509.Certificate{DNSNames: []string{name}, ExtraExtensions: acmeExtension(t, "other.token", true)})
	case ch.kind == challengeHTTP:
		r.site.files[file] = keyAuth
	case ch.kind == challengeDNS:
		sum := sha256.Sum256([]byte(keyAuth))
		r.setText(name, b64(sum[:]))
	case ch.kind == challengeTLS:
		r.site.certs[name] = alpnCertificate(t, &x509.Certificate{DNSNames: []string{name}, ExtraExtensions: acmeExtension(t, keyAuth, true)})
	}
}

func (r *replayer) setText(name, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts["_acme-challenge."+name+"."] = text
}

func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, ln.Close())
	return ln.Addr().String()
}

// csr makes one like the recorded: for the same names, by our key for its key, and with a broken signature if its was.
func (r *replayer) csr(t *testing.T, recorded string) string {
	t.Helper()
	der, err := base64.RawURLEncoding.DecodeString(recorded)
	if err != nil {
		return recorded
	}
	old, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return recorded
	}
	key := r.keyOf(t, old.PublicKey)
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: old.Subject, DNSNames: old.DNSNames}, key)
	must(t, err)
	if old.CheckSignature() != nil {
		other, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"other.test"}}, key)
		must(t, err)
		der = withSignatureOf(t, der, other)
	}
	return b64(der)
}

func (r *replayer) keyOf(t *testing.T, pub crypto.PublicKey) crypto.Signer {
	t.Helper()
	jwk := &jose.JSONWebKey{Key: pub}
	return r.keyFor(t, jwk, jwkOf(t, pub))
}

// certificate is ours for one that is to be revoked. One that no recorded exchange issued is issued here, for the account that the flow's first revocation
// belongs to.
func (r *replayer) certificate(t *testing.T, recorded string) string {
	t.Helper()
	der, err := base64.RawURLEncoding.DecodeString(recorded)
	must(t, err)
	old, err := x509.ParseCertificate(der)
	if err != nil {
		return recorded
	}
	serial := fmt.Sprintf("%036x", old.SerialNumber)
	if r.certs[serial] == nil {
		cert, err := r.ca.issue(r.accountOf(t, "16").ID, 0, []identifier{{identDNS, old.DNSNames[0]}}, r.keyOf(t, old.PublicKey).Public(), time.Hour)
		must(t, err)
		r.certs[serial] = cert.DER
		must(t, r.m.bind(serial, cert.Serial))
	}
	return b64(r.certs[serial])
}

func (r *replayer) compareCertificate(names []string, isCA bool, serial string, der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("our body is no certificate: %w", err)
	}
	if !slices.Equal(cert.DNSNames, names) || cert.IsCA != isCA {
		return fmt.Errorf("got a certificate for %v (CA %v), recorded %v (CA %v)", cert.DNSNames, cert.IsCA, names, isCA)
	}
	if isCA {
		if cert.Subject.String() != r.ca.authority.intermediate.Subject.String() {
			return errors.New("the issuer is not the intermediate")
		}
		return nil
	}
	return r.m.bind(serial, serialString(cert))
}

// withSignatureOf puts another request's signature under this one.
func withSignatureOf(t *testing.T, der, other []byte) []byte {
	t.Helper()
	type request struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var a, b request
	_, err := asn1.Unmarshal(der, &a)
	must(t, err)
	_, err = asn1.Unmarshal(other, &b)
	must(t, err)
	a.Signature = b.Signature
	out, err := asn1.Marshal(a)
	must(t, err)
	return out
}
