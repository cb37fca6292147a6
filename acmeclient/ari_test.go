package acmeclient

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const pathRenewalInfo = "/draft-ietf-acme-ari-03/renewalInfo/"

func TestRenewalInfo_IsThatOfTheCA(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	leaf, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.RenewalInfo(t.Context(), cert.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if info.Start.Before(leaf.NotBefore) || info.End.After(leaf.NotAfter) || !info.End.After(info.Start) {
		t.Errorf("window is %+v, valid from %v to %v", info, leaf.NotBefore, leaf.NotAfter)
	}
	if d := time.Until(info.NextCheck); d < 6*time.Hour-time.Minute || d > 6*time.Hour {
		t.Errorf("next check in %v, pebble says 6 h", d)
	}
	if got := p.count("GET " + pathRenewalInfo + certificateID(cert.Chain)); got != 1 {
		t.Errorf("%d requests", got)
	}
}

func TestRenewalInfo_OfARevokedCertificateHasPassed(t *testing.T) {
	c, _, _, _ := setup(t, pebbleOptions{})
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	if err := c.Revoke(t.Context(), cert.Chain, nil, ReasonSuperseded); err != nil {
		t.Fatal(err)
	}
	info, err := c.RenewalInfo(t.Context(), cert.Chain)
	if err != nil || !info.End.Before(time.Now()) || info.End.Sub(info.Start) > time.Minute {
		t.Errorf("window is %+v, error %v; pebble's is a second long, an hour ago", info, err)
	}
}

// answerRenewalInfo has the CA give another renewal information.
func answerRenewalInfo(status int, body string, headers ...string) rewrite {
	return func(r *http.Request, resp *httptest.ResponseRecorder) {
		if !strings.HasPrefix(r.URL.Path, pathRenewalInfo) {
			return
		}
		resp.Code = status
		resp.Body.Reset()
		resp.Body.WriteString(body)
		resp.Header().Del("Retry-After")
		for i := 0; i+1 < len(headers); i += 2 {
			resp.Header().Set(headers[i], headers[i+1])
		}
	}
}

func window(start, end string) string {
	return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, start, end)
}

func TestRenewalInfo_TakesWhatMakesSenseAndSaysWhenToAskAgain(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	good := window("2026-11-01T00:00:00Z", "2026-11-02T00:00:00+01:00")
	for _, tt := range []struct {
		name    string
		rewrite rewrite
		wrong   string // empty: taken
		next    time.Duration
		page    string
	}{
		{"as the RFC has it", answerRenewalInfo(200, `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}`,
			"Retry-After", "3600"), "", time.Hour, "https://ca.test/why"},
		{"asked too often", answerRenewalInfo(200, good, "Retry-After", "1"), "", time.Minute, ""},
		{"asked too rarely", answerRenewalInfo(200, good, "Retry-After", "604800"), "", 24 * time.Hour, ""},
		{"a date in the past", answerRenewalInfo(200, good, "Retry-After", "Sat, 21 Nov 2020 11:00:00 GMT"), "", time.Minute, ""},
		{"no Retry-After", answerRenewalInfo(200, good), "", 6 * time.Hour, ""},
		{"a page that is no page", answerRenewalInfo(200, `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"},"explanationURL":"javascript:alert(1)"}`), "", 6 * time.Hour, ""},
		{"a page of another type", answerRenewalInfo(200, `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"},"explanationURL":7}`), "", 6 * time.Hour, ""},

		{"end before start", answerRenewalInfo(200, window("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"), "Retry-After", "3600"), "not after its start", time.Hour, ""},
		{"no width", answerRenewalInfo(200, window("2026-11-02T00:00:00Z", "2026-11-02T00:00:00Z")), "not after its start", 6 * time.Hour, ""},
		{"no window", answerRenewalInfo(200, `{}`), "no suggestedWindow", 6 * time.Hour, ""},
		{"half a window", answerRenewalInfo(200, `{"suggestedWindow":{"start":"2026-11-02T00:00:00Z"}}`), "no suggestedWindow", 6 * time.Hour, ""},
		{"no dates", answerRenewalInfo(200, window("soon", "later")), "not the JSON", 6 * time.Hour, ""},
		{"HTML", answerRenewalInfo(200, "<html>"), "not the JSON", 6 * time.Hour, ""},
		{"nothing", answerRenewalInfo(200, ""), "not the JSON", 6 * time.Hour, ""},
		{"unknown certificate", answerRenewalInfo(404, acmeError("malformed", "no such certificate")), "no such certificate", 6 * time.Hour, ""},
		{"busy", answerRenewalInfo(503, acmeError("rateLimited", "busy"), "Retry-After", "7200"), "busy", 2 * time.Hour, ""},
		{"down", answerRenewalInfo(500, "<html>"), "500", time.Hour, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.rewrite(tt.rewrite)
			info, err := c.RenewalInfo(t.Context(), cert.Chain)
			if tt.wrong == "" && (err != nil || info.Start.IsZero() || info.Explanation != tt.page) {
				t.Errorf("info is %+v, error %v", info, err)
			}
			if tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong) || !info.Start.IsZero()) {
				t.Errorf("info is %+v, error %v", info, err)
			}
			if d := time.Until(info.NextCheck); d > tt.next || d < tt.next-5*time.Second {
				t.Errorf("next check in %v, wanted %v", d, tt.next)
			}
		})
	}
	p.rewrite()
	obtain(t, c, newRequest(t, "other.example.test")) // none of it keeps the CA from issuing
}

func TestRenewalInfo_IsNotThereAtEachCA(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	cert := obtain(t, c, newRequest(t, "www.example.test"))
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: leafOf(t, cert).SerialNumber, NotAfter: time.Now().Add(time.Hour)}
	noID := [][]byte{issueCert(t, tmpl, tmpl, key.Public(), key).Raw}
	if _, err := c.RenewalInfo(t.Context(), noID); !errors.Is(err, ErrNoRenewalInfo) {
		t.Errorf("without a key identifier: %v", err)
	}
	p.rewrite(editDirectory(func(dir map[string]any) { delete(dir, "renewalInfo") }))
	c.wire.directory.expire()
	info, err := c.RenewalInfo(t.Context(), cert.Chain)
	if !errors.Is(err, ErrNoRenewalInfo) || info.NextCheck.IsZero() {
		t.Errorf("without an endpoint: %+v, %v", info, err)
	}
}

func leafOf(t *testing.T, cert *Certificate) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func FuzzParseRenewalInfo(f *testing.F) {
	for _, s := range []string{
		window("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"), window("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"), window("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"),
		`{"suggestedWindow":{"start":"2026-11-01T00:00:00.123456789+23:59","end":"2026-11-02T00:00:00Z"},"explanationURL":"https://ca.test/why"}`,
		`{"suggestedWindow":null}`, `{"suggestedWindow":[]}`, `{"explanationURL":"x"}`, `null`, `<html>`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		info, err := parseRenewalInfo(body)
		if err == nil && !info.End.After(info.Start) {
			t.Errorf("window is %+v", info)
		}
		if err != nil && info != (RenewalInfo{}) {
			t.Errorf("info %+v beside error %v", info, err)
		}
	})
}
