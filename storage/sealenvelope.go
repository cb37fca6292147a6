package storage

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A sealed object is one line of header, 32 bytes of salt, and what AES-256-GCM made of the bytes:
//
//	gatelodge sealed 1 <key ID>\n <salt> <nonce> <ciphertext> <tag>
//
// The key of the cipher is made from the ring's key and the salt by HKDF-SHA256 (RFC 5869). The salt is new with each write and so is that key: the
// bound of GCM on random nonces under one key (2^32 writes) is out of reach, and the ring's key itself never meets data. Associated data are line, salt,
// a zero byte and the object's name: an envelope opens under its own name only.
const (
	sealMagic = "gatelodge sealed "
	sealIntro = sealMagic + "1 " // with the version of the format
	sealInfo  = "gatelodge storage 1 aes-256-gcm"

	saltLength  = 32
	nonceAndTag = 12 + 16

	// maxEnvelope is how much longer than its contents an envelope can be.
	maxEnvelope = len(sealIntro) + maxKeyID + 1 + saltLength + nonceAndTag
)

var (
	errSealTorn   = errors.New("it is sealed, but its end is missing")
	errSealBroken = errors.New("it is sealed, but its bytes are not those that were sealed under this name")
)

func isSealed(data []byte) bool { return bytes.HasPrefix(data, []byte(sealMagic)) }

// seal returns the envelope of data for the object name.
func (k *SealKey) seal(name string, data []byte) ([]byte, error) {
	header := len(sealIntro) + len(k.ID) + 1 + saltLength
	out := make([]byte, header, header+len(data)+nonceAndTag)
	n := copy(out, sealIntro)
	n += copy(out[n:], k.ID)
	out[n] = '\n'
	salt := out[n+1:]
	rand.Read(salt)
	aead, err := k.cipher(salt)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return aead.Seal(out, nil, data, sealedWith(out, name)), nil
}

// envelope is an envelope that was taken apart; the parts share its memory.
type envelope struct {
	id     string
	header []byte // line and salt
	salt   []byte
	body   []byte
}

// parseEnvelope takes data apart that isSealed. An envelope of another format has no id.
func parseEnvelope(data []byte) (envelope, error) {
	line, _, whole := bytes.Cut(data[:min(len(data), len(sealIntro)+maxKeyID+1)], []byte("\n"))
	id, known := bytes.CutPrefix(line, []byte(sealIntro))
	if !known && len(line) >= len(sealIntro) {
		return envelope{}, nil
	}
	header := len(line) + 1 + saltLength
	if !known || !whole || keyIDFault(string(id)) != "" || len(data) < header+nonceAndTag {
		return envelope{}, errSealTorn
	}
	return envelope{id: string(id), header: data[:header], salt: data[len(line)+1 : header], body: data[header:]}, nil
}

// open returns what is in the envelope of the object name.
func (k *SealKey) open(name string, e envelope) ([]byte, error) {
	aead, err := k.cipher(e.salt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	data, err := aead.Open([]byte{}, nil, e.body, sealedWith(e.header, name))
	if err != nil {
		return nil, errSealBroken
	}
	return data, nil
}

func (k *SealKey) cipher(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.Secret[:], salt, sealInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealedWith is the associated data.
func sealedWith(header []byte, name string) []byte {
	with := make([]byte, 0, len(header)+1+len(name))
	with = append(with, header...)
	with = append(with, 0)
	return append(with, name...)
}
