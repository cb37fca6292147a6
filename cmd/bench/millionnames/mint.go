package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs"
	"gatelodge/storage"
)

// mint is a store that has a certificate for each name: made when it is read, always the same, and as large as those of Let's Encrypt. What differs from one to
// the other in real ones differs here too, key and signatures included; the signatures are no good, which nobody in a server looks at. Everything else lies
// on disk.
type mint struct {
	*storage.Disk // for what is not a certificate
	names         int
	reads         atomic.Int64 // of certificates
	calls         atomic.Int64 // of any kind

	pattern
}

// pattern is what the certificates are made of. It is kept beside the index, so that every process makes the same.
type pattern struct {
	Template []byte   // leaf in DER, with a name of the right length
	Parts    [][]byte // of it, that differ from leaf to leaf
	Keys     []pair
	Chain    []byte // PEM of the rest
	Begins   time.Time
}

// pair is a private key in PEM and its public point as certificates have it.
type pair struct{ Private, Public []byte }

// manyKeys is how many keys there are: enough to have nothing to share.
const manyKeys = 512

func nameOf(i int) string { return fmt.Sprintf("shop-%07d.customers.example", i) }

func newMint(names int, dir string) (*mint, error) {
	disk, err := storage.OpenDisk(filepath.Join(dir, "storage"), nil)
	if err != nil {
		return nil, err
	}
	m := &mint{Disk: disk, names: names}
	file := filepath.Join(dir, "pattern.json")
	if data, err := os.ReadFile(file); err == nil {
		return m, json.Unmarshal(data, &m.pattern)
	}
	if err := m.make(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m.pattern)
	if err != nil {
		return nil, err
	}
	return m, os.WriteFile(file, data, 0o600)
}

// make makes the keys, the chain and one leaf, and remembers which parts of that differ from leaf to leaf.
func (p *pattern) make() error {
	p.Begins = time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Second)
	for range manyKeys {
		key, err := newPair()
		if err != nil {
			return err
		}
		p.Keys = append(p.Keys, key)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "E7", Organization: []string{"Nobody's CA"}, Country: []string{"US"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: p.Begins.Add(-time.Hour), NotAfter: p.Begins.AddDate(5, 0, 0), KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: random(20),
	}
	issuer, err := x509.CreateCertificate(rand.Reader, root, root, ca.Public(), ca)
	if err != nil {
		return err
	}
	p.Chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer})
	serial, scts, id := random(18), random(242), random(20)
	serial[0] = 5
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: nameOf(0)}, DNSNames: []string{nameOf(0)},
		NotBefore: p.Begins, NotAfter: p.Begins.AddDate(0, 0, 90), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, SubjectKeyId: id,
		IssuingCertificateURL: []string{"http://e7.i.lencr.example/"}, CRLDistributionPoints: []string{"http://e7.c.lencr.example/42.crl"},
		PolicyIdentifiers: []asn1.ObjectIdentifier{{2, 23, 140, 1, 2, 1}},
		ExtraExtensions:   []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: scts}}, // two SCTs have 242 bytes
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), p.Keys[0].Public)
	if err != nil {
		return err
	}
	if p.Template, err = x509.CreateCertificate(rand.Reader, leaf, root, key, ca); err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(p.Template)
	if err != nil {
		return err
	}
	// Of two SCTs the 64 bytes that name the logs are the same in all certificates of a time.
	p.Parts = [][]byte{serial[1:], id, scts[64:], parsed.Signature[len(parsed.Signature)-90:]}
	return nil
}

func newPair() (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return pair{}, err
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), public}, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// fillIndex enters all names into the index, as an import of them would.
func (m *mint) fillIndex(ctx context.Context) error {
	x := certs.NewIndexer(m.Disk, 0, zap.NewNop())
	for i := range m.names {
		b, err := storage.DecodeBundle(nameOf(i), m.object(i))
		if err != nil {
			return err
		}
		if err := x.Stored(ctx, nameOf(i), b); err != nil {
			return err
		}
	}
	return x.Flush(ctx)
}

// object is what storage has for the name.
func (m *mint) object(i int) []byte {
	name, key := nameOf(i), m.Keys[i%len(m.Keys)]
	leaf := bytes.ReplaceAll(m.Template, []byte(nameOf(0)), []byte(name))
	leaf = bytes.Replace(leaf, m.Keys[0].Public, key.Public, 1)
	noise := mathrand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24, 32), uint64(i))))
	for _, part := range m.Parts {
		at := bytes.Index(leaf, part)
		_, _ = noise.Read(leaf[at : at+len(part)])
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"format":1,"names":[%q],"ca":"letsencrypt","not_before":%q,"not_after":%q,"issued":%q,"fence":%d,"notes":{"order":"https://ca.example/order/%d"}}`+"\n",
		name, m.Begins.Format(time.RFC3339), m.Begins.AddDate(0, 0, 90).Format(time.RFC3339), m.Begins.Format(time.RFC3339), i+1, i)
	begin := out.Len()
	_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: leaf}) // a Buffer takes everything
	out.Write(m.Chain)
	out.Write(key.Private)
	fmt.Fprintf(&out, "pair sha256 %x\n", sha256.Sum256(out.Bytes()[begin:]))
	return out.Bytes()
}

// Get implements storage.Store.
func (m *mint) Get(ctx context.Context, name string) ([]byte, storage.Version, error) {
	m.calls.Add(1)
	host, ok := strings.CutPrefix(name, "certs/")
	if !ok {
		return m.Disk.Get(ctx, name)
	}
	m.reads.Add(1)
	var i int
	if n, err := fmt.Sscanf(host, "shop-%d.customers.example", &i); n != 1 || err != nil || i < 0 || i >= m.names || nameOf(i) != host {
		return nil, "", fs.ErrNotExist
	}
	return m.object(i), "1", nil
}
