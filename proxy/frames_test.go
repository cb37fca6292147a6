package proxy

import (
	"encoding/binary"
	"testing"
)

// frameEnds reads whole frames, slowly and obviously: the offsets at which one ends, up to the first Close frame's.
func frameEnds(p []byte) (ends map[int]bool, closed int) {
	ends, closed = map[int]bool{0: true}, len(p)+1
	for at := 0; ; {
		if len(p)-at < 2 {
			return
		}
		size, length := 2, uint64(p[at+1]&0x7f)
		switch length {
		case 126:
			if len(p)-at < 4 {
				return
			}
			size, length = 4, uint64(binary.BigEndian.Uint16(p[at+2:]))
		case 127:
			if len(p)-at < 10 {
				return
			}
			size, length = 10, binary.BigEndian.Uint64(p[at+2:])
		}
		if p[at+1]&0x80 != 0 {
			size += 4
		}
		if len(p)-at < size {
			return
		}
		if p[at]&0x0f == 8 && closed > len(p) {
			closed = at + size
		}
		if length > uint64(len(p)-at-size) {
			return
		}
		at += size + int(length)
		ends[at] = true
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 2, 'h', 'i', 0x82, 126, 0, 3, 1, 2, 3, 0x88, 2, 3, 0xe9}, 1)
	f.Add([]byte{0x81, 0x82, 1, 2, 3, 4, 'h', 'i', 0x89, 0, 0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9}, 3)
	f.Add([]byte{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0}, 7)
	f.Fuzz(func(t *testing.T, p []byte, step int) {
		step = max(1, step%16)
		ends, closed := frameEnds(p)
		var fr frames
		for at := 0; at < len(p); at += step {
			fr.advance(p[at:min(at+step, len(p))])
			now := min(at+step, len(p))
			if want := ends[now] && now < closed; fr.between() != want {
				t.Fatalf("after %d of % x: between is %v, want %v", now, p, fr.between(), want)
			}
		}
	})
}
