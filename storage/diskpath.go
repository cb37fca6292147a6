package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
)

// Where an object lies. A first segment has at most 256 folders with 16 each, so that a million names come to 244 files a folder, and thirty
// million are still fine. File names are the rest of the object's name with commas for its slashes; what is too long for a file
// name is cut and ends in a tilde and a hash. Neither commas nor tildes are in names.

// objectPath is the file of an object.
func (d *Disk) objectPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	first, rest, found := strings.Cut(name, "/")
	file := ","
	if found {
		file = fileName(rest, sum)
	}
	hash := hex.EncodeToString(sum[:2])
	return filepath.Join(d.root, "objects", first, hash[:2], hash[2:3], file)
}

// shardOf names the lock for writing an object.
func shardOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:1])
}

func fileName(name string, sum [sha256.Size]byte) string {
	const hashLength = 32 // hex digits
	file := strings.ReplaceAll(name, "/", ",")
	if len(file) <= maxSegment {
		return file
	}
	return file[:maxSegment-hashLength-1] + "~" + hex.EncodeToString(sum[:])[:hashLength]
}

// nameOf is the reverse of objectPath for one file below the folder of a first segment; not ok when only the file itself knows its name.
func nameOf(first, file string) (name string, ok bool) {
	if file == "," {
		return first, true
	}
	return first + "/" + strings.ReplaceAll(file, ",", "/"), !strings.Contains(file, "~")
}
