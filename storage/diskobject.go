package storage

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// An object's file is one line of header and then its bytes:
//
//	gatelodge object 1 <nonce> <SHA-256 of the bytes> <name>
//
// The nonce is 96 random bits in hex, new with each write: it is the Version, so two writes of the same bytes differ. The name is there so that a
// file put in the wrong place is not taken for another's, and for names too long to be a file's.

const (
	objectMagic = "gatelodge object "
	objectIntro = objectMagic + "1 " // with the version of the format

	nonceLength = 24 // hex digits
	sumLength   = 64

	// maxHeader is the longest header there can be.
	maxHeader = len(objectIntro) + nonceLength + 1 + sumLength + 1 + len(quarantinePrefix) + MaxName + 1
)

// damagedVersion begins the Version of a file whose header is not readable; the SHA-256 of the whole file follows.
const damagedVersion = "damaged-"

// errHeader says that a file does not begin like an object.
var errHeader = errors.New("its header is not that of an object")

type objectHeader struct {
	version Version
	sum     string // of the bytes, hex
	name    string
}

// newHeader is for a write about to happen.
func newHeader(name string, data []byte) objectHeader {
	var nonce [nonceLength / 2]byte
	rand.Read(nonce[:])
	return objectHeader{version: Version(hex.EncodeToString(nonce[:])), sum: sumOf(data), name: name}
}

func (h objectHeader) String() string {
	return fmt.Sprintf("%s%s %s %s\n", objectIntro, h.version, h.sum, h.name)
}

// parseObject takes a file apart. The header is good, and its version the file's, whenever it is not zero, even if the
// error says that the bytes are damaged.
func parseObject(file []byte) (objectHeader, []byte, error) {
	end := bytes.IndexByte(file[:min(len(file), maxHeader)], '\n')
	if end < 0 {
		return objectHeader{}, nil, errHeader
	}
	h, err := parseHeader(string(file[:end]))
	if err != nil {
		return objectHeader{}, nil, err
	}
	data := file[end+1:]
	if sumOf(data) != h.sum {
		return h, nil, errors.New("its bytes are not those that were written (checksum)")
	}
	return h, data, nil
}

// foundObject is the file of an object as it was read.
type foundObject struct {
	file    []byte
	data    []byte // the part of it that is the object's; nil if there is damage
	version Version
	damage  error
}

// judge decides whether the file is the object with that name, whole.
func judge(name string, file []byte) *foundObject {
	o := &foundObject{file: file}
	var h objectHeader
	h, o.data, o.damage = parseObject(file)
	switch {
	case len(file) == 0:
		o.damage = errors.New("its file is empty")
	case len(file) > maxStored+maxHeader:
		o.file, o.damage = file[:MaxObject], fmt.Errorf("its file is larger than an object can be (%d bytes)", MaxObject)
	case o.damage == nil && h.name != name:
		o.damage = fmt.Errorf("its file is that of the object %s, put into the wrong place", h.name)
	}
	if o.version = h.version; o.version == "" {
		o.version = Version(damagedVersion + sumOf(o.file))
	}
	if o.damage != nil {
		o.file, o.data = o.file[:min(len(o.file), MaxObject)], nil
	}
	return o
}

func parseHeader(line string) (objectHeader, error) {
	if strings.HasPrefix(line, objectMagic) && !strings.HasPrefix(line, objectIntro) {
		return objectHeader{}, fmt.Errorf("%w of a format this program knows", errHeader)
	}
	rest, ok := strings.CutPrefix(line, objectIntro)
	fields := strings.Split(rest, " ")
	if !ok || len(fields) != 3 || !isHex(fields[0], nonceLength) || !isHex(fields[1], sumLength) || CheckName(fields[2]) != nil {
		return objectHeader{}, errHeader
	}
	return objectHeader{version: Version(fields[0]), sum: fields[1], name: fields[2]}, nil
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
