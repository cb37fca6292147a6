package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed conf
var conf embed.FS

// peer says how a proxy is asked its version and run; "{}" stands for the configuration file.
type peer struct {
	version, run []string
}

var peers = map[string]*peer{ // read-only
	"gatelodge": {version: []string{"gatelodge", "--version"}, run: []string{"gatelodge", "run", "-c", "{}"}},
	"caddy":     {version: []string{"caddy", "version"}, run: []string{"caddy", "run", "--adapter", "caddyfile", "--config", "{}"}},
	"haproxy":   {version: []string{"haproxy", "-v"}, run: []string{"haproxy", "-db", "-f", "{}"}},
	"nginx":     {version: []string{"nginx", "-v"}, run: []string{"nginx", "-g", "daemon off;", "-c", "{}"}},
}

// running is a peer that serves.
type running struct {
	name, version, addr string
	cmd                 *exec.Cmd
	output              bytes.Buffer
}

// place is what the templates in conf/ may use.
type place struct {
	*site
	Dir, Addr, Host string
	Log             bool
	CPUs            int
}

// Port is Addr's.
func (p place) Port() string {
	_, port, _ := net.SplitHostPort(p.Addr)
	return port
}

func buildGatelodge(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", to, "gatelodge/cmd/gatelodge")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build gatelodge: %w\n%s", err, out)
	}
	return nil
}

// start runs a peer and returns when it serves.
func start(ctx context.Context, name string, o options, s *site, logging bool, dir string) (*running, error) {
	how := peers[name]
	program := how.run[0]
	if name == "gatelodge" {
		program = o.Gatelodge
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%w: install it (.ci/peers.sh does) or leave it out with -peers", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file, err := configure(name, place{site: s, Dir: dir, Addr: addr, Host: host, Log: logging, CPUs: runtime.NumCPU()})
	if err != nil {
		return nil, err
	}
	p := &running{name: name, addr: addr}
	if p.version, err = versionOf(ctx, path, how.version[1:]); err != nil {
		return nil, err
	}
	args := make([]string, len(how.run)-1)
	for i, arg := range how.run[1:] {
		args[i] = strings.ReplaceAll(arg, "{}", file)
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	p.cmd.Stderr = &p.output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.wait(ctx, s); err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w\n%s", name, err, p.output.Bytes())
	}
	return p, nil
}

func configure(name string, at place) (string, error) {
	t, err := template.ParseFS(conf, "conf/"+name+".tmpl")
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, at); err != nil {
		return "", err
	}
	file := filepath.Join(at.Dir, "conf")
	return file, os.WriteFile(file, text.Bytes(), 0o600)
}

func versionOf(ctx context.Context, program string, args []string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(strings.NewReplacer("version:", "", "version", "", "nginx/", "").Replace(line))
	if len(words) == 0 {
		return filepath.Base(program), nil
	}
	for _, w := range words {
		if strings.ContainsAny(w[:min(2, len(w))], "0123456789") || w == "devel" {
			return filepath.Base(program) + " " + w, nil
		}
	}
	return filepath.Base(program) + " " + words[0], nil
}

// wait returns when the peer completes a handshake.
func (p *running) wait(ctx context.Context, s *site) error {
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", p.addr, s.tlsConfig("http/1.1"))
		if err == nil {
			return conn.Close()
		}
		last = err
	}
	return errors.Join(last, ctx.Err())
}

// stop ends the peer and waits for it.
func (p *running) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer done.Stop()
	_ = p.cmd.Wait()
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
