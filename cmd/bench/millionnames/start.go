package main

import (
	"context"
	"crypto/tls"
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

// startBinary starts gatelodge over the index of the names, with a site of the internal CA beside them, until a handshake with that succeeds.
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
	names, config := filepath.Join(dir, "names"), filepath.Join(dir, "gatelodge.toml")
	if err := os.WriteFile(names, []byte("*.customers.example\n"), 0o600); err != nil {
		return err
	}
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
`, port, filepath.Join(o.dir, "storage"), filepath.Join(dir, "admin.sock"), names)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, o.binary, "run", "-c", config)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var accepted time.Duration
	for ctx.Err() == nil {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if accepted == 0 {
			accepted = time.Since(began)
		}
		client := tls.Client(conn, &tls.Config{ServerName: "app.internal", InsecureSkipVerify: true}) // the internal CA's root is not at hand
		err = client.HandshakeContext(ctx)
		conn.Close()
		if err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	shaken := time.Since(began)
	stop()
	_ = cmd.Wait() // it was interrupted
	fmt.Fprintf(out, "start of the binary with %d names stored: accepts after %v, first handshake after %v\n", o.names, accepted.Round(time.Millisecond), shaken.Round(time.Millisecond))
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
