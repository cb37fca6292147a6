package storage

import (
	"errors"
	"fmt"
	"strings"
)

// MaxName is the greatest length of an object's name in bytes, not counting the prefix that [Quarantine] adds. The
// longest host name (253 bytes) fits in it beside any prefix that makes sense; S3 ends at 1024.
const MaxName = 512

// maxSegment is what file systems allow for one file name.
const maxSegment = 255

// ErrName is wrapped by the error of every method that was given a name CheckName refuses.
var ErrName = errors.New("storage: not a name of an object")

// CheckName reports what is wrong with the name of an object or a lease.
//
// A name is one or more segments with a slash between them. A segment has 1 to 255 of the letters, digits and
// "-._:@=+*", and does not begin with a dot: host names, wildcards, addresses, e-mail addresses and base64url are segments as they are, while
// nothing can climb out of a folder or hide in it. Everything else, percent signs and commas among it, is left to
// backends for their own purposes. Names are compared byte by byte; host names come here in lower case.
func CheckName(name string) error {
	if n := len(strings.TrimPrefix(name, quarantinePrefix)); n > MaxName {
		return fmt.Errorf("%w: %d bytes are too long", ErrName, n)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if fault := segmentFault(segment); fault != "" {
			return fmt.Errorf("%w: %q: %s", ErrName, name, fault)
		}
	}
	return nil
}

func segmentFault(segment string) string {
	switch {
	case segment == "":
		return "a segment is empty"
	case len(segment) > maxSegment:
		return fmt.Sprintf("a segment has %d bytes, more than %d", len(segment), maxSegment)
	case segment[0] == '.':
		return "a segment begins with a dot"
	}
	for i := range len(segment) {
		if !nameByte(segment[i]) {
			return fmt.Sprintf("a segment contains %q", segment[i])
		}
	}
	return ""
}

func nameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._:@=+*", c) >= 0
}
