package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	encoding "encoding/asn1"
)

// simMint makes certificates as fast as bytes can be put together: each is whole and can be parsed, has its key, names and dates, and a signature that is not one.
// Its chain is the leaf alone, so nobody checks it.
type simMint struct {
	key  []byte // PKCS #8 of the key that all certificates of old have (see simWorld.furnish)
	spki []byte // and its public half
}

func newSimMint(t testing.TB) simMint {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var m simMint
	if m.key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		t.Fatal(err)
	}
	if m.spki, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		t.Fatal(err)
	}
	return m
}

// simAuthority is the authority key identifier.
const simAuthority = "the simulated CA's key"

// simSerial says which certificate of which name it is, so that nothing has to be looked up by it.
func simSerial(name, nth int) []byte {
	serial := binary.BigEndian.AppendUint32([]byte{0x40}, uint32(name))
	return binary.BigEndian.AppendUint32(serial, uint32(nth))
}

func simSerialParse(serial []byte) (name, nth int, ok bool) {
	if len(serial) != 9 {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint32(serial[1:])), int(binary.BigEndian.Uint32(serial[5:])), true
}

// simID is the reverse of renewalID.
func simID(id string) (name, nth int, ok bool) {
	_, text, _ := strings.Cut(id, ".")
	serial, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return 0, 0, false
	}
	return simSerialParse(serial)
}

func simIDOf(serial []byte) string {
	return base64.RawURLEncoding.EncodeToString([]byte(simAuthority)) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

// simSerialOf reads the serial number of a certificate.
func simSerialOf(der []byte) (name, nth int, ok bool) {
	s := cryptobyte.String(der)
	var cert, tbs cryptobyte.String
	serial := new(big.Int)
	if !s.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) || !tbs.SkipASN1(asn1.Tag(0).ContextSpecific().Constructed()) || !tbs.ReadASN1Integer(serial) {
		return 0, 0, false
	}
	return simSerialParse(serial.Bytes())
}

// certificate is a leaf for the name.
func (m simMint) certificate(name string, serial, spki []byte, begins, ends time.Time) []byte {
	var b cryptobyte.Builder
	algorithm := func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(encoding.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
		})
	}
	extension := func(b *cryptobyte.Builder, id int, value func(*cryptobyte.Builder)) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(encoding.ObjectIdentifier{2, 5, 29, id})
			b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(asn1.SEQUENCE, value) })
		})
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
			b.AddASN1BigInt(new(big.Int).SetBytes(serial))
			algorithm(b)
			b.AddASN1(asn1.SEQUENCE, func(*cryptobyte.Builder) {})
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, t := range []time.Time{begins, ends} {
					b.AddASN1(asn1.UTCTime, func(b *cryptobyte.Builder) { b.AddBytes(t.UTC().AppendFormat(nil, "060102150405Z")) })
				}
			})
			b.AddASN1(asn1.SEQUENCE, func(*cryptobyte.Builder) {})
			b.AddBytes(spki)
			b.AddASN1(asn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					extension(b, 35, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(simAuthority)) })
					})
					extension(b, 17, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.Tag(2).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
					})
				})
			})
		})
		algorithm(b)
		b.AddASN1BitString([]byte("no signature"))
	})
	return b.BytesOrPanic()
}
