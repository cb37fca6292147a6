package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gatelodge/acmeclient/devca"
	"gatelodge/cmd/internal/config"
)

// demo is the main job on an embedded default: a CA, an app and the proxy between them, all on loopback.
type demo struct {
	dir, https, http, to string
	acme                 string // "v2", "v1" or "upgrade"
	out                  io.Writer

	ca *devca.CA
}

func demoCommand() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole way on this machine: a small ACME CA, a sample app, and HTTPS in front of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = cmd.OutOrStdout()
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return d.run(ctx)
		},
	}
	cmd.Flags().StringVar(&d.dir, "dir", "", "keep certificates and the CA in `DIR` (default: demo in the user's data folder)")
	cmd.Flags().StringVar(&d.https, "https", "127.0.0.1:8443", "loopback `ADDRESS` for HTTPS")
	cmd.Flags().StringVar(&d.http, "http", "127.0.0.1:8080", "loopback `ADDRESS` for HTTP")
	cmd.Flags().StringVar(&d.to, "to", "", "`URL` of your app instead of the sample app")
	cmd.Flags().StringVar(&d.acme, "acme", "v2", "`PROTOCOL` of the demo's CA: v2, v1 (then it serves no v2 at all), or upgrade (v2 appears after the first certificate)")
	return cmd
}

// run starts app and CA, writes the configuration that a user would write, and runs it like `gatelodge run`.
func (d *demo) run(ctx context.Context) error {
	lock, err := d.prepare()
	if err != nil {
		return err
	}
	defer lock.Close()
	if d.to == "" {
		app, err := startDemoApp()
		if err != nil {
			return err
		}
		defer app.Close()
		d.to = app.URL()
	}
	protocols, ok := map[string]devca.Protocols{"v2": devca.ProtocolsV2, "v1": devca.ProtocolsV1, "upgrade": devca.ProtocolsV1}[d.acme]
	if !ok {
		return fmt.Errorf("--acme is v2, v1 or upgrade, not %q", d.acme)
	}
	if d.ca, err = devca.New(devca.Config{Dir: filepath.Join(d.dir, "ca"), HTTPAddr: d.http, TLSAddr: d.https, Protocols: protocols, Log: d.out}); err != nil {
		return err
	}
	if err := d.ca.Start(ctx); err != nil {
		return err
	}
	defer d.ca.Close()
	if err := os.WriteFile(d.root(), d.ca.RootPEM(), 0o644); err != nil {
		return err
	}
	file := filepath.Join(d.dir, "gatelodge.toml")
	if err := os.WriteFile(file, []byte(d.configuration(d.ca.DirectoryURL())), 0o600); err != nil {
		return err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	p, err := newProgram(ctx, cfg, func() (*config.Config, error) { return config.Load(file) }, nil)
	if err != nil {
		return err
	}
	d.greet(portOf(p.https.Listeners[0]))
	if d.acme == "upgrade" {
		upgradeCtx, stop := context.WithCancel(ctx)
		var upgrading sync.WaitGroup
		defer upgrading.Wait()
		defer stop()
		upgrading.Go(func() { d.upgrade(upgradeCtx, p) })
	}
	return p.run(ctx)
}

// upgrade lets the CA gain v2 once it has issued over v1, and asks the proxy to look, as an operator would with `gatelodge acme probe`. By itself it looks daily.
func (d *demo) upgrade(ctx context.Context, p *program) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for d.ca.Stats().Certificates == 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	d.ca.Upgrade()
	if st, err := p.probeCA(ctx, "demo"); err != nil {
		fmt.Fprintf(d.out, "probe: %v\n", err)
	} else {
		fmt.Fprintf(d.out, "The CA speaks v2 now; gatelodge looked and says: %s, %s. Ask for another name.\n", st.State, st.Evidence)
	}
}

// prepare makes the folder and holds it, so that a second demo does not write into the first one's, and checks what the flags say.
func (d *demo) prepare() (lock *os.File, err error) {
	if d.to != "" { // as `run --to` takes it
		cfg, err := config.ForHost("localhost", d.to)
		if err != nil {
			return nil, err
		}
		d.to = cfg.Sites[0].To.String()
	}
	if d.dir == "" {
		data := config.Default().Storage.Path
		if data == "" {
			return nil, errors.New("this user has no data folder: use --dir")
		}
		d.dir = filepath.Join(data, "demo")
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the demo's folder: %w", err)
	}
	if lock, err = os.OpenFile(filepath.Join(d.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("lock the demo's folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another demo runs in %s: end it, or choose another folder with --dir", d.dir), lock.Close())
	}
	if err := errors.Join(d.chooseAddresses(), os.WriteFile(filepath.Join(d.dir, "names"), []byte("localhost\n*.localhost\n"), 0o600)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// chooseAddresses takes free ports for the addresses that end in ":0", since the CA has to know them.
func (d *demo) chooseAddresses() error {
	for _, addr := range []*string{&d.https, &d.http} {
		ln, err := net.Listen("tcp", *addr)
		if err != nil {
			return fmt.Errorf("%w; --https and --http choose other addresses", err)
		}
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
			_ = ln.Close()
			return fmt.Errorf("%s is not a loopback address: the demo's CA validates on this machine only", *addr)
		}
		*addr = ln.Addr().String()
		defer ln.Close() // both are kept until both are known, so that they differ
	}
	return nil
}

func (d *demo) root() string { return filepath.Join(d.dir, "root.pem") }

// configuration is an ordinary one. Its [[ca]] names localhost, so it goes before the internal CA, which serves these names otherwise.
func (d *demo) configuration(directory string) string {
	_, port, _ := net.SplitHostPort(d.http) // which chooseAddresses has made
	return fmt.Sprintf(`# Written by "gatelodge demo" at each start.
[listen]
https = [%q]
http  = [%q]

[[ca]]
name      = "demo"
directory = %q
roots     = [%q]
names     = ["localhost", "*.localhost"]
http_port = %s

[on_demand]
enabled    = true
names_file = %q

[storage]
path = %q

[admin]
listen  = %q
metrics = ""

[log]
format = "text"
level  = "warn"
access = %q

[process]
drain = "1s" # the demo page holds a stream of events open

[[site]]
hosts     = ["localhost", "*.localhost"]
on_demand = true
to        = %q
`, d.https, d.http, directory, d.root(), port, filepath.Join(d.dir, "names"), filepath.Join(d.dir, "storage"),
		"unix://"+filepath.Join(d.dir, "admin.sock"), filepath.Join(d.dir, "access.log"), d.to)
}

func (d *demo) greet(port int) {
	fmt.Fprintf(d.out, `HTTPS in front of %[1]s; each name gets its certificate at its first handshake.

  URL     https://localhost:%[2]d   (and NAME.localhost)
  folder  %[3]s
  root    %[4]s

  curl --cacert %[4]s https://localhost:%[2]d/
  curl --cacert %[4]s https://another.localhost:%[2]d/

What the CA sees (Ctrl-C ends the demo):
`, d.to, port, d.dir, d.root())
}
