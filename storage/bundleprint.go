package storage

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// The methods here stand between a Bundle and everything that prints, so that no careless log line shows a key. They have value receivers: a
// Bundle and a *Bundle are equally safe.

// String says which certificate it is.
func (b Bundle) String() string {
	return fmt.Sprintf("bundle(%s by %q until %s)", strings.Join(b.Names, " "), b.CA, b.NotAfter.UTC().Format(time.RFC3339))
}

// Format implements fmt.Formatter: every verb prints String.
func (b Bundle) Format(f fmt.State, _ rune) { io.WriteString(f, b.String()) }

// MarshalJSON implements json.Marshaler with what is in the first line of the object: the key is not in it. To store a bundle, see Encode.
func (b Bundle) MarshalJSON() ([]byte, error) { return json.Marshal(newAbout(&b)) }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (b Bundle) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("names", strings.Join(b.Names, " "))
	e.AddString("ca", b.CA)
	e.AddTime("not_after", b.NotAfter)
	return nil
}

// LogValue implements slog.LogValuer.
func (b Bundle) LogValue() slog.Value { return slog.StringValue(b.String()) }
