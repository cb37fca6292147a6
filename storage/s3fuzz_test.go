package storage

import (
	"strings"
	"testing"
	"time"
)

func FuzzLeaseRecord(f *testing.F) {
	f.Add(leaseRecord{State: leaseHeld, Holder: "host/1/x", Fence: 1, LeaseMS: 30000, Beat: 2}.encode())
	f.Add([]byte(`{"state":"free","holder":"h","fence":18446744073709551615}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseLeaseRecord(data)
		if err != nil {
			return
		}
		if d := r.valid(30 * time.Second); d <= 0 || d > maxForeignLease {
			t.Errorf("others wait %v", d)
		}
		if next := nextFence(r.Fence); next <= r.Fence {
			t.Errorf("fence %d after %d", next, r.Fence)
		}
		r.Holder = strings.ToValidUTF8(r.Holder, "�")
		again, err := parseLeaseRecord(r.encode())
		if err != nil || again != r {
			t.Errorf("%+v, written and read: %+v, %v", r, again, err)
		}
	})
}

func FuzzWhatLiesInTheBucket(f *testing.F) {
	tombstone, _ := newTombstone()
	f.Add(tombstone)
	f.Add([]byte(newHeader("certs/a.example", []byte("x")).String() + "x"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, file []byte) {
		nonce, buried := tombstoneNonce(file)
		if buried && !isHex(nonce, nonceLength) {
			t.Errorf("nonce %q", nonce)
		}
		o := judge("certs/a.example", file)
		if buried && o.damage == nil {
			t.Error("both a tombstone and an object")
		}
		v := versionOf("e/tag", string(o.version))
		if etag, ok := etagOf(v); !ok || etag != "e/tag" {
			t.Errorf("the ETag of version %q is %q", v, etag)
		}
	})
}
