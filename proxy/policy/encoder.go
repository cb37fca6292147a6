package policy

import (
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// An encoder compresses what is written to it. Flush sends all that was written so far in such a way that it can be read.
type encoder interface {
	io.Writer
	Flush() error
	Close() error
	Reset(w io.Writer)
}

// encoders keeps those of one coding that are not in use: they are large, and slow to make.
type encoders struct{ free sync.Pool }

// The levels are those at which a processor still keeps up with a network; what answers are worth more is compressed beforehand by whoever makes them.
const (
	gzipLevel   = 5
	brotliLevel = 4
	zstdWindow  = 128 << 10 // bounds the encoder's memory and the browser's; RFC 9659 lets browsers refuse more than 8 MiB
)

func newEncoders(coding string) *encoders {
	news := map[string]func() any{
		"gzip": func() any {
			w, _ := gzip.NewWriterLevel(nil, gzipLevel) // an error says that there is no such level
			return w
		},
		"br": func() any { return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: brotliLevel, LGWin: 18}) },
		"zstd": func() any {
			w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
				zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true)) // an error says that an option is impossible
			return w
		},
	}[coding]
	if news == nil {
		return nil
	}
	return &encoders{free: sync.Pool{New: news}}
}

func (e *encoders) take(w io.Writer) encoder {
	enc := e.free.Get().(encoder)
	enc.Reset(w)
	return enc
}

func (e *encoders) give(enc encoder) {
	enc.Reset(io.Discard) // so that it keeps nobody's connection
	e.free.Put(enc)
}
