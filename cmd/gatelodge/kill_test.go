package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
)

// TestProgram_SurvivesKillDuringIssuance kills the real process at another moment of an issuance each time, starts it again, and wants the name
// up, at once, with no more orders than kills could cost.
func TestProgram_SurvivesKillDuringIssuance(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 4
	}
	moments := []string{"newOrder", "authorization", "challenge", "finalize", "certificate"}
	reached := make(chan struct{}, 1)
	armed := make(chan string, 1) // holds the endpoint at which the CA tells us, and then answers slowly
	l := newLodge(t, devca.Config{Fault: func(_ http.ResponseWriter, _ *http.Request, endpoint string) bool {
		select {
		case at := <-armed:
			if at == endpoint {
				reached <- struct{}{}
				time.Sleep(20 * time.Millisecond) // the answer is on its way when the process dies
			} else {
				armed <- at
			}
		default:
		}
		return false
	}})
	l.configure(l.ca.DirectoryURL(), "")

	for i := range kills {
		name := "kill" + string(rune('a'+i)) + ".test"
		p := l.startProcess()
		armed <- moments[i%len(moments)]
		go func() { _, _ = l.handshake(name) }()
		select {
		case <-reached:
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d: the order never came to %s:\n%s", i, moments[i%len(moments)], p.log)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		p.kill()

		p = l.startProcess()
		begin := time.Now()
		if _, err := l.handshake(name); err != nil {
			t.Errorf("round %d, killed at %s: %v\n%s", i, moments[i%len(moments)], err, p.log)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("round %d, killed at %s: up after %v", i, moments[i%len(moments)], took)
		}
		want := 1
		if at := moments[i%len(moments)]; at == "authorization" || at == "challenge" {
			want = 2 // the CA may come to validate while nobody is there
		}
		if n := l.orders(name); n > want {
			t.Errorf("round %d, killed at %s: %d orders", i, moments[i%len(moments)], n)
		}
		p.kill()
	}
	l.wantNoLeftovers()
}

// wantNoLeftovers starts once more and looks for temporary files, which the start sweeps.
func (l *lodge) wantNoLeftovers() {
	p := l.startProcess()
	defer p.kill()
	eventually(l.t, "no temporary files but those that the process just writes", func() bool {
		entries, err := filepath.Glob(l.path("storage/tmp/*/*"))
		return err == nil && len(entries) == 0
	})
}

// process is the built binary, running.
type process struct {
	cmd *exec.Cmd
	log *syncBuffer
}

func (l *lodge) startProcess() *process { return l.startProcessWith(l.path("gatelodge.toml")) }

// servingLine is in the log of a process, and nowhere before its listeners are open.
const servingLine = "\tserving\t"

func (l *lodge) startProcessWith(config string, env ...string) *process {
	l.t.Helper()
	p := &process{cmd: exec.CommandContext(l.t.Context(), "gatelodge", "run", "-c", config), log: &syncBuffer{}}
	p.cmd.Stderr = p.log
	p.cmd.Env = append(append(os.Environ(), "HOME="+l.dir), env...)
	if err := p.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	eventually(l.t, "the process serves", func() bool {
		return strings.Contains(p.log.String(), servingLine) || strings.Contains(p.log.String(), "gatelodge:")
	})
	if !strings.Contains(p.log.String(), servingLine) {
		l.t.Fatalf("the process did not start:\n%s", p.log)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// interrupt lets it end as it does by itself.
func (p *process) interrupt() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	_ = p.cmd.Wait()
}
