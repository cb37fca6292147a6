package main

import (
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger writes to stderr. Format is "json" or "text", level one of zap's.
func newLogger(format, level string) (*zap.Logger, error) {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	return zap.New(zapcore.NewCore(newEncoder(format), zapcore.Lock(os.Stderr), lvl)), nil
}

func newEncoder(format string) zapcore.Encoder {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339TimeEncoder
	enc.EncodeDuration = zapcore.SecondsDurationEncoder
	enc.TimeKey = "time"
	if format == "text" {
		enc.EncodeDuration = zapcore.StringDurationEncoder
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(enc)
	}
	return zapcore.NewJSONEncoder(enc)
}

// accessLog is where requests are recorded: standard output, a file that can be reopened after logrotate moved it, or nowhere.
type accessLog struct {
	Logger *zap.Logger // nil when off

	path string
	mu   sync.Mutex // guards file
	file *os.File
}

// openAccessLog takes "stdout", "off" or a path.
func openAccessLog(where, format string) (*accessLog, error) {
	a := &accessLog{}
	switch where {
	case "off":
		return a, nil
	case "stdout":
		a.file = os.Stdout
	default:
		a.path = where
		if err := a.Reopen(); err != nil {
			return nil, err
		}
	}
	a.Logger = zap.New(zapcore.NewCore(newEncoder(format), a, zapcore.InfoLevel))
	return a, nil
}

// Write implements zapcore.WriteSyncer.
func (a *accessLog) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Write(p)
}

// Sync implements zapcore.WriteSyncer; the kernel writes access logs in its own time.
func (a *accessLog) Sync() error { return nil }

// Reopen opens the file anew under its path; on failure the old one goes on being used.
func (a *accessLog) Reopen() error {
	if a.path == "" {
		return nil
	}
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open the access log: %w", err)
	}
	a.mu.Lock()
	old := a.file
	a.file = f
	a.mu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// Close closes the file, if it is ours.
func (a *accessLog) Close() error {
	if a.path == "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Close()
}
