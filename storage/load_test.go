package storage_test

import (
	"errors"
	"testing"

	"go.uber.org/zap"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestLoadJSON_PutsDamageAsideAndNeverTakesAnOutageForAnAbsence(t *testing.T) {
	type count struct {
		N int `json:"n"`
	}
	s := storagetest.NewFaulty(storage.NewMemory())
	load := func() (count, storage.Version, error) {
		return storage.LoadJSON[count](t.Context(), s, "counts/a", zap.NewNop())
	}
	if _, _, err := load(); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	written, err := s.Put(t.Context(), "counts/a", []byte(`{"n":7,"of_a_newer_program":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if c, v, err := load(); err != nil || c.N != 7 || v != written {
		t.Errorf("%+v at %q, %v", c, v, err)
	}
	s.Set(storagetest.Fault{Op: storagetest.Get})
	if _, _, err := load(); err == nil || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("an outage: %v", err)
	}
	s.Set()
	if _, err := s.Put(t.Context(), "counts/a", []byte(`{"n":`)); err != nil {
		t.Fatal(err)
	}
	if c, v, err := load(); !errors.Is(err, storage.ErrNotExist) || v != "" || c.N != 0 {
		t.Errorf("damaged: %+v at %q, %v", c, v, err)
	}
	if data, _, err := s.Get(t.Context(), "quarantine/counts/a"); err != nil || string(data) != `{"n":` {
		t.Errorf("put aside: %q, %v", data, err)
	}
}

func TestLoad_ReturnsWhatSomebodyWroteInPlaceOfTheDamage(t *testing.T) {
	s := storage.NewMemory()
	if _, err := s.Put(t.Context(), "a", []byte("bad")); err != nil {
		t.Fatal(err)
	}
	decode := func(data []byte) (string, error) {
		if string(data) != "bad" {
			return string(data), nil
		}
		_, err := s.Put(t.Context(), "a", []byte("good"))
		return "", errors.Join(errors.New("bad"), err)
	}
	if got, _, err := storage.Load(t.Context(), s, "a", decode, zap.NewNop()); err != nil || got != "good" {
		t.Errorf("%q, %v", got, err)
	}
}
