package storagetest

import (
	"errors"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
)

func quarantineKeepsTheBytes(t *testing.T, s storage.Store) {
	core, logged := observer.New(zap.InfoLevel)
	log := zap.New(core)
	put(t, s, "certs/a.example", "damaged")
	cause := storage.NewCorruptError("certs/a.example", []byte("damaged"), errors.New("no certificate in it"))

	must(0, storage.Quarantine(t.Context(), s, "certs/a.example", cause, log))(t)
	_, _, err := s.Get(t.Context(), "certs/a.example")
	wantErr(t, "get", err, storage.ErrNotExist)
	if got, _ := get(t, s, "quarantine/certs/a.example"); got != "damaged" {
		t.Errorf("kept: %q", got)
	}
	if logged.Len() != 1 {
		t.Errorf("log: %v", logged.All())
	}

	must(0, storage.Quarantine(t.Context(), s, "certs/a.example", cause, log))(t) // gone already
	stale := put(t, s, "certs/a.example", "bad too")
	put(t, s, "certs/a.example", "good, by somebody else")
	must(0, storage.Quarantine(t.Context(), s, "certs/a.example", cause, log))(t)
	must(0, storage.Quarantine(t.Context(), s, "certs/a.example", &storage.CorruptError{Name: "certs/a.example", Err: cause.Err, Version: stale}, log))(t)
	if got, _ := get(t, s, "certs/a.example"); got != "good, by somebody else" {
		t.Errorf("the good object: %q", got)
	}
	if logged.Len() != 1 {
		t.Errorf("log: %v", logged.All())
	}
	_, v := get(t, s, "certs/a.example")
	must(0, storage.Quarantine(t.Context(), s, "certs/a.example", &storage.CorruptError{Name: "certs/a.example", Err: cause.Err, Version: v}, log))(t)
	_, _, err = s.Get(t.Context(), "certs/a.example")
	wantErr(t, "get", err, storage.ErrNotExist)
}
