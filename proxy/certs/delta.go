package certs

import (
	"encoding/binary"
	"errors"
)

// Certificates of one CA have more in common than not: names of the issuer, URLs, policies, the order of it all. So a leaf is kept as what sets it apart from a
// sample of its CA, and from its own host, which is in it two or three times: half of its bytes. It is the idea of LZ77 with a dictionary, without an entropy coder:
// serial numbers, keys and signatures do not get smaller.
//
// The form is a sequence of: a count of literal bytes, these bytes, a count of bytes to copy, where in the dictionary they begin. Numbers are varints.

// shortestCopy is the fewest bytes worth a copy, which takes about three.
const shortestCopy = 6

// errDelta says that bytes cannot be what appendDelta made.
var errDelta = errors.New("certs: a certificate in memory is damaged")

// appendDelta appends what sets data apart from the dictionary.
func appendDelta(out, data, dictionary []byte) []byte {
	var places [2048]uint16 // by hash, where in the dictionary four bytes are, plus one
	dictionary = dictionary[:min(len(dictionary), 1<<16-1)]
	for i := 0; i+4 <= len(dictionary); i++ {
		places[hash4(dictionary[i:])] = uint16(i + 1)
	}
	literal := 0 // where the bytes begin that are not yet written
	for i := 0; i+4 <= len(data); {
		from := int(places[hash4(data[i:])]) - 1
		n := 0
		if from >= 0 {
			n = common(data[i:], dictionary[from:])
		}
		if n < shortestCopy {
			i++
			continue
		}
		out = appendStep(out, data[literal:i], n, from)
		i += n
		literal = i
	}
	return appendStep(out, data[literal:], 0, 0)
}

func appendStep(out, literal []byte, n, from int) []byte {
	out = binary.AppendUvarint(out, uint64(len(literal)))
	out = append(out, literal...)
	out = binary.AppendUvarint(out, uint64(n))
	return binary.AppendUvarint(out, uint64(from))
}

// hash4 is of the first four bytes, 11 bits of it.
func hash4(b []byte) uint32 { return binary.LittleEndian.Uint32(b) * 2654435761 >> 21 }

// common is the length of the longest common prefix.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// applyDelta is the reverse of appendDelta, for data of that size.
func applyDelta(delta, dictionary []byte, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		literal, at := binary.Uvarint(delta)
		if at <= 0 || literal > uint64(len(delta)-at) {
			return nil, errDelta
		}
		out = append(out, delta[at:at+int(literal)]...)
		delta = delta[at+int(literal):]
		n, at := binary.Uvarint(delta)
		if at <= 0 {
			return nil, errDelta
		}
		from, more := binary.Uvarint(delta[at:])
		if more <= 0 || from > uint64(len(dictionary)) || n > uint64(len(dictionary))-from {
			return nil, errDelta
		}
		out = append(out, dictionary[from:from+n]...)
		delta = delta[at+more:]
	}
	if len(out) != size {
		return nil, errDelta
	}
	return out, nil
}
