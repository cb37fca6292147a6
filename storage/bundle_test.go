package storage_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
)

var (
	notBefore = time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	notAfter  = notBefore.Add(90 * 24 * time.Hour)
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newBundle returns a bundle as an issuance makes it: leaf and intermediate.
func newBundle(t testing.TB, key crypto.Signer, names ...string) *storage.Bundle {
	t.Helper()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey := newKey(t)
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: notBefore, NotAfter: notAfter}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &storage.Bundle{
		Names: names, CA: "letsencrypt", Chain: [][]byte{leafDER, caDER}, Key: keyDER, NotBefore: notBefore, NotAfter: notAfter,
		Issued: notBefore.Add(time.Hour), Fence: 1795291726951000, RenewStart: notAfter.Add(-30 * 24 * time.Hour), RenewEnd: notAfter.Add(-28 * 24 * time.Hour),
		Notes: map[string]string{"order": "https://ca.example/order/1", "protocol": "acme v2"},
	}
}

func encode(t testing.TB, b *storage.Bundle) []byte {
	t.Helper()
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t testing.TB, data []byte) *storage.Bundle {
	t.Helper()
	b, err := storage.DecodeBundle("certs/a.example", data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fields returns the exported fields, for comparison.
func fields(b *storage.Bundle) map[string]any {
	m := map[string]any{}
	for v, i := reflect.ValueOf(b).Elem(), 0; i < v.NumField(); i++ {
		if f := v.Type().Field(i); f.IsExported() {
			m[f.Name] = v.Field(i).Interface()
		}
	}
	return m
}

func TestBundle_ComesBackAsItWasStored(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "RSA": rsaKey, "Ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			want := newBundle(t, key, "a.example", "*.b.example")
			data := encode(t, want)
			got := decode(t, data)
			if !reflect.DeepEqual(fields(got), fields(want)) {
				t.Errorf("got  %+v\nwant %+v", fields(got), fields(want))
			}
			if again := encode(t, got); !bytes.Equal(again, data) {
				t.Errorf("stored again it is\n%s\nnot\n%s", again, data)
			}
			c, err := got.TLSCertificate()
			if err != nil || c.Leaf == nil || len(c.Certificate) != 2 || !c.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
				t.Errorf("certificate %v, error %v", c, err)
			}
			if _, err := want.TLSCertificate(); err != nil {
				t.Errorf("of a bundle not decoded: %v", err)
			}
		})
	}
}

func TestBundle_IsReadableByOtherPrograms(t *testing.T) {
	b := newBundle(t, newKey(t), "a.example")
	data := encode(t, b)
	if _, err := tls.X509KeyPair(data, data); err != nil { // as from two PEM files
		t.Error(err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	var about map[string]any
	if err := json.Unmarshal(line, &about); err != nil || about["ca"] != "letsencrypt" || about["not_after"] != "2027-01-30T10:00:00Z" {
		t.Errorf("first line %s: %v", line, err)
	}
}

func TestBundle_TakesFromTheLeafWhatIsNotGiven(t *testing.T) {
	full := newBundle(t, newKey(t), "a.example")
	got := decode(t, encode(t, &storage.Bundle{Chain: full.Chain, Key: full.Key}))
	want := &storage.Bundle{Chain: full.Chain, Key: full.Key, Names: full.Names, NotBefore: notBefore, NotAfter: notAfter}
	if !reflect.DeepEqual(fields(got), fields(want)) {
		t.Errorf("got  %+v\nwant %+v", fields(got), fields(want))
	}
}

func TestBundle_KeepsFieldsOfANewerProgram(t *testing.T) {
	data := encode(t, newBundle(t, newKey(t), "a.example"))
	newer := bytes.Replace(data, []byte(`{"format":1,`), []byte(`{"format":1,"tenant":{"id":7},"profile":"short",`), 1)
	b := decode(t, newer)
	if b.Lost != nil || string(b.Extra["tenant"]) != `{"id":7}` || string(b.Extra["profile"]) != `"short"` {
		t.Errorf("extra %s, lost %v", b.Extra, b.Lost)
	}
	b.Notes = map[string]string{"changed": "yes"}
	b.Extra["ca"] = json.RawMessage(`"cannot be smuggled in"`)
	again := decode(t, encode(t, b))
	if string(again.Extra["tenant"]) != `{"id":7}` || again.CA != "letsencrypt" || again.Notes["changed"] != "yes" {
		t.Errorf("stored again: %+v", fields(again))
	}
}

func TestDecodeBundle_BrokenMetadataNeverDisablesAGoodPair(t *testing.T) {
	good := newBundle(t, newKey(t), "a.example")
	data := encode(t, good)
	line, pair, _ := bytes.Cut(data, []byte("\n"))
	for name, first := range map[string]string{
		"no first line": "", "empty line": "\n", "cut": string(line[:40]) + "\n", "not JSON": "\x00\x01garbage\n", "an array": "[1,2]\n", "null": "null\n",
		"names of the wrong type": `{"format":1,"names":7,"ca":"letsencrypt"}` + "\n",
		"date that is none":       `{"format":1,"not_after":"soon"}` + "\n",
		"newer format":            `{"format":2,"names":["a.example"]}` + "\n",
		"no format":               `{"names":["a.example"]}` + "\n",
	} {
		b := decode(t, append([]byte(first), pair...))
		if b.Lost == nil || !reflect.DeepEqual(b.Names, good.Names) || !b.NotAfter.Equal(notAfter) || !bytes.Equal(b.Key, good.Key) {
			t.Errorf("%s: %+v", name, fields(b))
		}
		if strings.HasPrefix(name, "names") && b.CA != "letsencrypt" {
			t.Errorf("%s: one broken member spoils another: %+v", name, fields(b))
		}
	}
}

func TestDecodeBundle_SaysWhatIsWrongWithAPair(t *testing.T) {
	key := newKey(t)
	good, other := newBundle(t, key, "a.example"), newBundle(t, newKey(t), "a.example")
	cert := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	private := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	for _, c := range []struct{ name, data, want string }{
		{"nothing", "", "no certificate"},
		{"first line only", `{"format":1}` + "\n", "no certificate"},
		{"no key", "{}\n" + cert(good.Chain[0]), "no private key"},
		{"no certificate", "{}\n" + private(good.Key), "no certificate"},
		{"empty key", "{}\n" + cert(good.Chain[0]) + private(nil), "private key is empty"},
		{"cut key", "{}\n" + cert(good.Chain[0]) + private(good.Key[:50]), "private key cannot be parsed"},
		{"foreign key", "{}\n" + cert(good.Chain[0]) + private(other.Key), "not that of its certificate"},
		{"two keys", "{}\n" + cert(good.Chain[0]) + private(good.Key) + private(other.Key), "two private keys"},
		{"cut certificate", "{}\n" + cert(good.Chain[0][:100]) + private(good.Key), "parse its certificate"},
		{"cut PEM", "{}\n" + cert(good.Chain[0])[:200] + "\n" + private(good.Key), "no certificate"},
		{"endless chain", "{}\n" + strings.Repeat(cert(good.Chain[0]), 17) + private(good.Key), "more than 16"},
	} {
		_, err := storage.DecodeBundle("certs/a.example", []byte(c.data))
		corrupt, ok := errors.AsType[*storage.CorruptError](err)
		if !ok || corrupt.Name != "certs/a.example" || !strings.Contains(err.Error(), c.want) || errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		noSecret(t, c.name, fmt.Sprint(err), good.Key)
	}
}

func TestBundle_EncodeRefusesAPairThatCannotServe(t *testing.T) {
	good, other := newBundle(t, newKey(t), "a.example"), newBundle(t, newKey(t), "a.example")
	for name, b := range map[string]*storage.Bundle{
		"empty": {}, "no key": {Chain: good.Chain}, "no chain": {Key: good.Key}, "foreign key": {Chain: good.Chain, Key: other.Key},
	} {
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: was encoded", name)
		}
	}
}

// noSecret fails if the text shows part of the key in some usual spelling.
func noSecret(t *testing.T, how, text string, key []byte) {
	t.Helper()
	part := key[40:60] // inside the private scalar
	for _, s := range []string{string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		base64.StdEncoding.EncodeToString(key[39:60]), strings.Trim(fmt.Sprint(part), "[]"), strings.ReplaceAll(strings.Trim(fmt.Sprint(part), "[]"), " ", ",")} {
		if strings.Contains(text, s) {
			t.Errorf("%s shows the key: %s", how, text)
		}
	}
}

func TestBundle_NeverPrintsItsKey(t *testing.T) {
	b := newBundle(t, newKey(t), "a.example")
	decoded := decode(t, encode(t, b))
	for _, v := range []any{b, *b, decoded, *decoded, struct{ B storage.Bundle }{*b}, []storage.Bundle{*b}, map[string]*storage.Bundle{"b": b}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			noSecret(t, verb, fmt.Sprintf(verb, v), b.Key)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		noSecret(t, "json", string(text), b.Key)
		var out bytes.Buffer
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.DebugLevel))
		log.Info("any", zap.Any("any", v), zap.Reflect("reflect", v), zap.Error(fmt.Errorf("%v", v)))
		log.Sugar().Infow("sugar", "b", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("slog", "b", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("slog", "b", v)
		noSecret(t, "loggers", out.String(), b.Key)
	}
	if got := b.String(); !strings.Contains(got, "a.example") || !strings.Contains(got, "2027-01-30") {
		t.Errorf("String: %s", got)
	}
}

func TestLoadBundle_CopesWithDamage(t *testing.T) {
	good := newBundle(t, newKey(t), "a.example")
	data := encode(t, good)
	flip := func(at string) func([]byte) []byte {
		return func(f []byte) []byte { f[bytes.Index(f, []byte(at))] ^= 1; return f }
	}
	for _, c := range []struct {
		name   string
		damage func(file []byte) []byte
		mended bool
	}{
		{"in the header", flip("gatelodge object"), true},
		{"in the first line", flip("letsencrypt"), true},
		{"in the certificate", func(f []byte) []byte { f[bytes.Index(f, []byte("BEGIN CERT"))+200] ^= 1; return f }, false},
		{"in the intermediate", func(f []byte) []byte { f[bytes.LastIndex(f, []byte("BEGIN CERT"))+300] ^= 1; return f }, false},
		{"in the key", func(f []byte) []byte { f[bytes.Index(f, []byte("BEGIN PRIV"))+100] ^= 1; return f }, false},
		{"cut", func(f []byte) []byte { return f[:len(f)-100] }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := openDisk(t, dir)
			if _, err := d.Put(t.Context(), "certs/a.example", data); err != nil {
				t.Fatal(err)
			}
			damageFile(t, objectFile(t, dir, "a.example"), c.damage)
			core, logged := observer.New(zap.InfoLevel)
			b, v, err := storage.LoadBundle(t.Context(), d, "certs/a.example", zap.New(core))
			if logged.Len() != 1 {
				t.Errorf("log: %v", logged.All())
			}
			if !c.mended {
				if !errors.Is(err, storage.ErrNotExist) {
					t.Errorf("got %v, %v", b, err)
				}
				return
			}
			if err != nil || b.Lost == nil || !bytes.Equal(b.Key, good.Key) || len(b.Chain) != 2 {
				t.Fatalf("got %v, %v", b, err)
			}
			if again, is, err := storage.LoadBundle(t.Context(), d, "certs/a.example", zap.New(core)); err != nil || is != v || !bytes.Equal(again.Key, good.Key) {
				t.Errorf("read again: %v at %q, want %q, %v", again, is, v, err)
			}
		})
	}
}

func TestLoadBundle_QuarantinesWhatIsNoBundle(t *testing.T) {
	m := storage.NewMemory()
	m.Put(t.Context(), "certs/a.example", []byte("no bundle"))
	if _, _, err := storage.LoadBundle(t.Context(), m, "certs/a.example", zap.NewNop()); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if data, _, err := m.Get(t.Context(), "quarantine/certs/a.example"); string(data) != "no bundle" {
		t.Errorf("kept %q, %v", data, err)
	}
}

// smallBundle is a bundle that is always the same and has few bytes for a fuzzer to shorten.
func smallBundle(t testing.TB) *storage.Bundle {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"a.example"}, NotBefore: notBefore, NotAfter: notAfter}
	leafDER, err := x509.CreateCertificate(nil, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &storage.Bundle{CA: "le", Chain: [][]byte{leafDER}, Key: keyDER, Fence: 7, Notes: map[string]string{"a": "b"}}
}

// The fuzzer makes the first lines; what follows is a good pair, cut somewhere and with a bit flipped.
func FuzzDecodeBundle(f *testing.F) {
	_, pair, _ := bytes.Cut(encode(f, smallBundle(f)), []byte("\n"))
	f.Add([]byte(`{"format":1,"names":["a"],"fence":7,"notes":{"a":"b"},"x":[1]}`+"\n"), uint16(len(pair)), uint16(0xffff))
	f.Add([]byte("{}\n"), uint16(100), uint16(0xffff))
	f.Add([]byte("{}\n"), uint16(len(pair)), uint16(200))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, first []byte, cut, flip uint16) {
		data := append(bytes.Clone(first), pair[:min(int(cut), len(pair))]...)
		if int(flip) < len(data) {
			data[flip] ^= 1
		}
		b, err := storage.DecodeBundle("certs/a.example", data)
		if err != nil {
			if _, ok := errors.AsType[*storage.CorruptError](err); !ok {
				t.Fatalf("an error that is no CorruptError: %v", err)
			}
			return
		}
		again, err := b.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		if c, err := storage.DecodeBundle("certs/a.example", again); err != nil || c.Lost != nil {
			t.Fatalf("encoded but not decoded: %v, %v", err, c)
		}
	})
}
