package storage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func sealKey(id string) storage.SealKey {
	k := storage.SealKey{ID: id}
	rand.Read(k.Secret[:])
	return k
}

func sealed(t testing.TB, inner storage.Store, require bool, keys ...storage.SealKey) *storage.Sealed {
	t.Helper()
	s, err := storage.NewSealed(t.Context(), inner, storage.SealConfig{Keys: keys, Require: require}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// withoutCanary is a store whose canary does not show in listings, which the contract wants empty at first.
type withoutCanary struct{ *storage.Sealed }

func (s withoutCanary) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	names, err := s.Sealed.List(ctx, prefix, after, limit)
	for i, name := range names {
		if name == "keys/canary" {
			return append(names[:i:i], names[i+1:]...), err
		}
	}
	return names, err
}

func TestSealed_KeepsTheContract(t *testing.T) {
	inner := map[string]func(t *testing.T) storage.Store{
		"Memory": func(t *testing.T) storage.Store { return storage.NewMemory() },
		"Disk":   func(t *testing.T) storage.Store { return openDisk(t, t.TempDir()) },
	}
	for name, open := range inner {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store {
				return withoutCanary{sealed(t, open(t), true, sealKey("2026-11"), sealKey("2026-05"))}
			})
		})
	}
	t.Run("WithoutKeys", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store { return sealed(t, storage.NewMemory(), false) })
	})
}

func TestSealed_ShowsNothingOfWhatItKeeps(t *testing.T) {
	memory := storage.NewMemory()
	s := sealed(t, memory, false, sealKey("k"))
	for _, name := range []string{"certs/a.example", "pending/a.example", "acme/le/account", "localca/root", "tickets/current", "index/07", "quarantine/certs/a.example"} {
		v := put(t, s, name, "secret of "+name)
		stored, innerV, err := memory.Get(t.Context(), name)
		if err != nil || innerV != v {
			t.Fatalf("%s: version %q below, %q above, %v", name, innerV, v, err)
		}
		if bytes.Contains(stored, []byte("secret")) || !bytes.HasPrefix(stored, []byte("gatelodge sealed 1 k\n")) {
			t.Errorf("%s lies there as %q", name, stored)
		}
		if got, gotV := get(t, s, name); got != "secret of "+name || gotV != v {
			t.Errorf("%s: %q at %q", name, got, gotV)
		}
	}
	put(t, s, "acme/challenges/00ff", "for all to see")
	if stored, _ := get(t, memory, "acme/challenges/00ff"); stored != "for all to see" {
		t.Errorf("a challenge lies there as %q", stored)
	}
}

func put(t testing.TB, s storage.Store, name, data string) storage.Version {
	t.Helper()
	v, err := s.Put(t.Context(), name, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func get(t testing.TB, s storage.Store, name string) (string, storage.Version) {
	t.Helper()
	data, v, err := s.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), v
}

func TestSealed_EveryDamageIsACorruptErrorAndQuarantined(t *testing.T) {
	memory := storage.NewMemory()
	s := sealed(t, memory, true, sealKey("key-1"))
	put(t, s, "certs/a.example", "the secret")
	whole, _ := get(t, memory, "certs/a.example")

	check := func(what, stored string) {
		t.Helper()
		put(t, memory, "certs/a.example", stored)
		data, _, err := s.Get(t.Context(), "certs/a.example")
		if errors.Is(err, storage.ErrNotExist) || err == nil {
			t.Errorf("%s: %q, %v", what, data, err)
		}
	}
	for i := range len(whole) {
		for bit := range 8 {
			flipped := []byte(whole)
			flipped[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d", bit, i), string(flipped))
		}
		check(fmt.Sprintf("cut to %d bytes", i), whole[:i])
	}
	check("a byte more", whole+"x")

	flipped := []byte(whole)
	flipped[len(flipped)-1] ^= 1
	put(t, memory, "certs/a.example", string(flipped))
	_, v := get(t, memory, "certs/a.example")
	_, _, err := s.Get(t.Context(), "certs/a.example")
	corrupt, ok := errors.AsType[*storage.CorruptError](err)
	if !ok || corrupt.Version != v {
		t.Fatalf("error %#v", err)
	}
	if err := storage.Quarantine(t.Context(), s, "certs/a.example", err, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if got, _ := get(t, s, "quarantine/certs/a.example"); got != string(flipped) {
		t.Errorf("quarantined: %q", got)
	}
}

func TestSealed_OpensUnderItsOwnNameOnly(t *testing.T) {
	memory := storage.NewMemory()
	s := sealed(t, memory, true, sealKey("k"))
	put(t, s, "certs/a.example", "for a")
	stored, _ := get(t, memory, "certs/a.example")
	put(t, memory, "certs/b.example", stored)
	_, _, err := s.Get(t.Context(), "certs/b.example")
	if _, ok := errors.AsType[*storage.CorruptError](err); !ok {
		t.Errorf("error %v", err)
	}
}

func TestSealed_UnknownKeyIsNeitherAbsenceNorDamage(t *testing.T) {
	memory := storage.NewMemory()
	old, fresh := sealKey("old"), sealKey("fresh")
	put(t, sealed(t, memory, true, old), "certs/a.example", "x")
	s := sealed(t, memory, true, fresh)

	_, _, err := s.Get(t.Context(), "certs/a.example")
	missing, ok := errors.AsType[*storage.KeyError](err)
	_, damaged := errors.AsType[*storage.CorruptError](err)
	if !ok || missing.ID != "old" || damaged || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	_, _, err = storage.LoadBundle(t.Context(), s, "certs/a.example", zap.NewNop())
	if _, ok := errors.AsType[*storage.KeyError](err); !ok {
		t.Errorf("load: %v", err)
	}
	if err := storage.Quarantine(t.Context(), s, "certs/a.example", &storage.CorruptError{Name: "certs/a.example"}, zap.NewNop()); err == nil {
		t.Error("an object whose key is missing was put into quarantine")
	}
	get(t, memory, "certs/a.example")

	put(t, memory, "certs/b.example", "gatelodge sealed 2 something new")
	_, _, err = s.Get(t.Context(), "certs/b.example")
	if missing, ok := errors.AsType[*storage.KeyError](err); !ok || missing.ID != "" {
		t.Errorf("another format: %v", err)
	}
}

func TestSealed_RefusesPlaintextOnlyIfToldTo(t *testing.T) {
	memory := storage.NewMemory()
	put(t, memory, "certs/a.example", "in clear")
	key := sealKey("k")
	_, _, err := sealed(t, memory, true, key).Get(t.Context(), "certs/a.example")
	if !errors.Is(err, storage.ErrPlaintext) || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("required: %v", err)
	}
	s := sealed(t, memory, false, key)
	data, v := get(t, s, "certs/a.example")
	if _, err := s.PutIf(t.Context(), "certs/a.example", []byte(data), v); err != nil {
		t.Fatal(err)
	}
	if got, _ := get(t, sealed(t, memory, true, key), "certs/a.example"); got != "in clear" {
		t.Errorf("after the next write: %q", got)
	}
	if _, err := storage.NewSealed(t.Context(), memory, storage.SealConfig{Require: true}, nil); err == nil {
		t.Error("sealing is required, there is no key, and that was taken")
	}
}

func TestSealed_CanaryFindsAWrongKeyBeforeAnythingElse(t *testing.T) {
	memory := storage.NewMemory()
	right := sealKey("2026-05")
	put(t, sealed(t, memory, true, right), "certs/a.example", "x")
	wrong := sealKey("2026-05")
	for what, keys := range map[string][]storage.SealKey{
		"alone":              {wrong},
		"second of the ring": {sealKey("2026-11"), wrong},
		"none":               nil,
	} {
		_, err := storage.NewSealed(t.Context(), memory, storage.SealConfig{Keys: keys}, nil)
		if err == nil || !strings.Contains(err.Error(), "2026-05") {
			t.Errorf("%s: %v", what, err)
		}
	}
	core, logged := observer.New(zap.WarnLevel)
	if _, err := storage.NewSealed(t.Context(), memory, storage.SealConfig{Keys: []storage.SealKey{sealKey("other")}}, zap.New(core)); err != nil {
		t.Error(err)
	}
	if logged.FilterField(zap.String("key", "2026-05")).Len() != 1 {
		t.Errorf("a ring that lacks a key: %v", logged.All())
	}

	put(t, memory, "keys/canary", "{")
	if _, err := storage.NewSealed(t.Context(), memory, storage.SealConfig{Keys: []storage.SealKey{right}}, nil); err == nil {
		t.Error("a canary that cannot be read was taken")
	}
	outage := storagetest.NewFaulty(memory, storagetest.Fault{Op: storagetest.Get})
	if _, err := storage.NewSealed(t.Context(), outage, storage.SealConfig{Keys: []storage.SealKey{right}}, nil); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("an outage: %v", err)
	}
}

func TestSealed_MendsABundleWhoseFileIsDamagedOutsideTheEnvelope(t *testing.T) {
	dir := t.TempDir()
	s := sealed(t, openDisk(t, dir), true, sealKey("k"))
	want := newBundle(t, newKey(t), "a.example")
	put(t, s, "certs/a.example", string(encode(t, want)))
	damageHeader(t, dir, "a.example")

	if _, _, err := s.Get(t.Context(), "certs/a.example"); err == nil {
		t.Fatal("the damage was not noticed")
	}
	got, _, err := storage.LoadBundle(t.Context(), s, "certs/a.example", zap.NewNop())
	if err != nil || !reflect.DeepEqual(got.Chain, want.Chain) {
		t.Fatalf("%v, %v", got, err)
	}
	if _, _, err := s.Get(t.Context(), "certs/a.example"); err != nil {
		t.Errorf("after mending: %v", err)
	}
}

// damageHeader flips a bit in the header that the disk puts before an object.
func damageHeader(t *testing.T, dir, base string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) != base {
			return err
		}
		found++
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file[len("gatelodge object 1 ")] = 'X'
		return os.WriteFile(path, file, 0o600)
	})
	if err != nil || found != 1 {
		t.Fatalf("%d files damaged, %v", found, err)
	}
}

func TestSealKey_IsNeverPrinted(t *testing.T) {
	key := storage.SealKey{ID: "id", Secret: [32]byte([]byte("0123456789abcdefghijklmnopqrstuv"))}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", key, &key, []storage.SealKey{key})
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"a": key, "b": &key, "c": storage.SealConfig{Keys: []storage.SealKey{key}}}); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "key", key, "p", &key)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.DebugLevel)
	zap.New(core).Info("m", zap.Any("key", key), zap.Any("keys", []storage.SealKey{key}), zap.Reflect("r", &key))
	for _, leak := range []string{"0123456789abcdef", "30313233", "MDEyMzQ", "48, 49", "48 49", "48,49", "0x30"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in\n%s", leak, out.String())
		}
	}
}

func FuzzSealed_Get(f *testing.F) {
	memory := storage.NewMemory()
	s := sealed(f, memory, true, storage.SealKey{ID: "k", Secret: [32]byte{1}})
	put(f, s, "certs/a.example", "the secret")
	whole, _ := get(f, memory, "certs/a.example")
	f.Add([]byte(whole))
	f.Add([]byte(whole[:30]))
	f.Add([]byte("gatelodge sealed 1 other\n" + strings.Repeat("x", 100)))
	f.Add([]byte("gatelodge sealed 2"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		if len(stored) > 1<<16 {
			return
		}
		put(t, memory, "certs/a.example", string(stored))
		data, _, err := s.Get(t.Context(), "certs/a.example")
		if err == nil && (len(stored) != len(whole) || string(data) != "the secret") { // another process of the fuzzer made the seeds
			t.Errorf("%q was opened as %q", stored, data)
		}
		if errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%q is taken for an absence", stored)
		}
	})
}
