package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// measureStart says how long it takes from the start to the first handshake: of the manager in this process and, if there is one, of the binary.
func measureStart(ctx context.Context, o options, out io.Writer) error {
	began := time.Now()
	b, err := open(ctx, o, o.budget)
	if err != nil {
		return err
	}
	err = b.visit(o.names - 1)
	first := time.Since(began)
	if err == nil {
		err = b.awaitIndex(ctx)
	}
	all := time.Since(began)
	b.close()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "start of the manager with %d names stored: first handshake after %v, all names known after %v\n", o.names, first.Round(time.Millisecond), all.Round(time.Millisecond))
	if o.binary == "" {
		return nil
	}
	return startBinary(ctx, o, out)
}

// startBinary starts gatelodge over the index of the names, with a site of the internal CA beside them, until a handshake with that succeeds and all names are known.
func startBinary(ctx context.Context, o options, out io.Writer) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millionnames")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config, err := writeConfig(dir, filepath.Join(o.dir, "storage"), port)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, o.binary, "run", "-c", config)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	known := make(chan int, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		followLog(log, known)
	}()
	accepted := awaitHandshake(ctx, fmt.Sprintf("127.0.0.1:%d", port), began)
	shaken, names := time.Since(began), 0
	select {
	case names = <-known:
	case <-ctx.Done():
	}
	all := time.Since(began)
	rss, peak := memory(cmd.Process.Pid)
	stop()
	<-read
	_ = cmd.Wait() // it was interrupted
	fmt.Fprintf(out, "start of the binary with %d names stored: accepts after %v, first handshake after %v, %d names known after %v: RSS %.0f MiB, at most %.0f\n", o.names,
		accepted.Round(time.Millisecond), shaken.Round(time.Millisecond), names, all.Round(time.Millisecond), rss, peak)
	return nil
}

// writeConfig returns the file.
func writeConfig(dir, storage string, port int) (string, error) {
	names, config := filepath.Join(dir, "names"), filepath.Join(dir, "gatelodge.toml")
	text := fmt.Sprintf(`[listen]
https = ["127.0.0.1:%d"]
http  = []
[storage]
path = %q
[admin]
listen  = "unix://%s"
metrics = ""
[on_demand]
enabled    = true
names_file = %q
[[ca]]
name      = "letsencrypt"
directory = "https://127.0.0.1:1/directory"
[[site]]
hosts = ["app.internal"]
to    = "http://127.0.0.1:1"
[[site]]
hosts     = ["*"]
on_demand = true
to        = "http://127.0.0.1:1"
`, port, storage, filepath.Join(dir, "admin.sock"), names)
	return config, errors.Join(os.WriteFile(names, []byte("*.customers.example\n"), 0o600), os.WriteFile(config, []byte(text), 0o600))
}

// followLog tells how many names are known when the log says so. Faults are shown.
func followLog(log io.Reader, known chan<- int) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Names int    `json:"names"`
		}
		switch err := json.Unmarshal(lines.Bytes(), &line); {
		case err != nil, line.Level == "error":
			fmt.Fprintln(os.Stderr, lines.Text())
		case line.Msg == namesKnown:
			known <- line.Names // it is said once
		}
	}
}

// awaitHandshake tries until a handshake succeeds, and returns how long it took from the beginning until a connection was accepted.
func awaitHandshake(ctx context.Context, address string, began time.Time) (accepted time.Duration) {
	for ctx.Err() == nil {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			if accepted == 0 {
				accepted = time.Since(began)
			}
			client := tls.Client(conn, &tls.Config{ServerName: "app.internal", InsecureSkipVerify: true}) // the internal CA's root is not at hand
			err = client.HandshakeContext(ctx)
			conn.Close()
		}
		if err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return accepted
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
