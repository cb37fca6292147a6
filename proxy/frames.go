package proxy

import "encoding/binary"

// frames follows the frames of a WebSocket (RFC 6455 §5.2) as their bytes pass, to know where one may be put in between. The zero value is at the beginning.
type frames struct {
	header [14]byte // of the frame that is passing, as far as it came
	have   int      // bytes of it; zero once it is complete
	left   uint64   // bytes of payload still to come
	closed bool     // a Close frame has begun: nothing may follow it
}

// advance follows p, which has passed.
func (f *frames) advance(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have < 2 || f.have < f.size() {
			continue
		}
		f.left, f.have = f.payload(), 0
		f.closed = f.closed || f.header[0]&0x0f == 0x8
	}
}

// between reports whether a frame of ours may come next.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.closed }

// size is the length of the header, of which two bytes are there.
func (f *frames) size() int {
	n := 2
	switch f.header[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4 // the mask
	}
	return n
}

func (f *frames) payload() uint64 {
	switch n := f.header[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(n)
	}
}

// goingAway is a server's Close frame with the status 1001 (RFC 6455 §7.4.1): "such as a server going down". Clients come again.
var goingAway = []byte{0x88, 2, 0x03, 0xe9}
