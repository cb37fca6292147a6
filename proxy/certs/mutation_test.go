package certs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// mutation is a fault that is planted into the code.
type mutation struct{ file, from, to string }

// mutations reads the list. Each must fit the code as it is, at exactly one place.
func mutations(t *testing.T) (all []mutation) {
	t.Helper()
	list, err := os.ReadFile("testdata/mutations.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		file, change, _ := strings.Cut(strings.TrimSpace(line), ": ")
		from, to, ok := strings.Cut(change, " => ")
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !ok || strings.Count(string(code), from) != 1 {
			t.Fatalf("%q is not exactly once in %s: mend testdata/mutations.txt", from, file)
		}
		all = append(all, mutation{file, from, to})
	}
	return all
}

// Each planted fault must be found by the simulation. That takes minutes, so a run takes two of them, in rotation by the number in MUTATIONS (the gate's is that of
// commits), and all with FULL=1:
//
//	FULL=1 go test -run TestMutations -timeout 30m ./proxy/certs
//
// Without either, the list is held to the code.
func TestMutations_EachIsCaughtByTheSimulation(t *testing.T) {
	all := mutations(t)
	if len(all) != 10 {
		t.Errorf("%d mutations", len(all))
	}
	turn, err := strconv.Atoi(os.Getenv("MUTATIONS"))
	for i, m := range all {
		if os.Getenv("FULL") == "" && (err != nil || i/2 != turn%(len(all)/2)) {
			continue
		}
		t.Run(strconv.Itoa(i+1)+" "+filepath.Base(m.file), func(t *testing.T) {
			out, err := m.simulate(t)
			switch text := string(out); {
			case err == nil:
				t.Errorf("not caught: %s became %s", m.from, m.to)
			case !strings.Contains(text, "again: SIM_SEED="):
				t.Errorf("it failed, but not by what the simulation looks at:\n%s", text)
			default:
				_, why, _ := strings.Cut(text, "day ")
				why, _, _ = strings.Cut(why, "\n")
				t.Logf("caught on day %s", why)
			}
		})
	}
}

// simulate runs the simulation with the fault, without touching the tree.
func (m mutation) simulate(t *testing.T) ([]byte, error) {
	code, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	planted := filepath.Join(t.TempDir(), "planted.go")
	if err := os.WriteFile(planted, []byte(strings.Replace(string(code), m.from, m.to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	data, err := json.Marshal(map[string]map[string]string{"Replace": {original: planted}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-count=1", "-run", "TestSimulation_AYear", ".")
	cmd.Env = append(os.Environ(), "FULL=", "MUTATIONS=", "SIM_SEED=1", "SIM_DAYS=150")
	return cmd.CombinedOutput()
}
