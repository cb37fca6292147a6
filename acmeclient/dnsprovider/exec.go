package dnsprovider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
)

const (
	defaultRun = time.Minute
	longestRun = 10 * time.Minute
	maxSaid    = 1 << 10         // bytes of what the program said that an error repeats
	waitDelay  = 2 * time.Second // for the program's output to end once it is killed
)

// program makes and removes records by running "command... present NAME VALUE" and "command... cleanup NAME VALUE", as lego's exec provider does. NAME
// has a final dot. No shell is involved. The program has our environment; it must leave other values of the same name alone, succeed if there is nothing to
// clean up, and return when the provider has accepted the change.
type program struct {
	command []string
	timeout time.Duration
}

func newExec(s *settings) certmagic.DNSProvider {
	p := &program{command: s.texts("command"), timeout: s.duration("timeout", defaultRun, longestRun)}
	if len(p.command) > 0 && p.command[0] != "" && !filepath.IsAbs(p.command[0]) {
		s.fault("command is not an absolute path")
	}
	return p
}

// CallTimeout makes it an acmeclient.PatientProvider.
func (p *program) CallTimeout() time.Duration { return p.timeout }

// AppendRecords runs the program with "present" for each record.
func (p *program) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.each(ctx, "present", zone, recs)
}

// DeleteRecords runs the program with "cleanup" for each record.
func (p *program) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.each(ctx, "cleanup", zone, recs)
}

func (p *program) each(ctx context.Context, verb, zone string, recs []libdns.Record) (done []libdns.Record, err error) {
	for _, rec := range recs {
		rr := rec.RR()
		if err := p.run(ctx, verb, libdns.AbsoluteName(rr.Name, zone), rr.Data); err != nil {
			return done, err
		}
		done = append(done, rr)
	}
	return done, nil
}

// run runs the program once. What it starts is killed with it when the time is up.
func (p *program) run(ctx context.Context, verb, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	args := append(p.command[1:len(p.command):len(p.command)], verb, name, value)
	cmd := exec.CommandContext(ctx, p.command[0], args...)
	said := &tail{}
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	began := time.Now()
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the second: it ended well, and left a child with its output behind
		return nil
	case ctx.Err() != nil:
		err = fmt.Errorf("killed after %v: %w", time.Since(began).Round(time.Millisecond), ctx.Err())
	}
	if text := said.text(); text != "" {
		return fmt.Errorf("run %s %s: %w: %s", p.command[0], verb, err, text)
	}
	return fmt.Errorf("run %s %s: %w", p.command[0], verb, err)
}

// tail keeps the end of what is written to it. Its only user reads it when the writer has ended.
type tail struct{ buf []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - maxSaid; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// text returns what was said in one line without control characters.
func (t *tail) text() string {
	fields := strings.FieldsFunc(string(bytes.ToValidUTF8(t.buf, []byte("?"))), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	return strings.Join(fields, " ")
}
