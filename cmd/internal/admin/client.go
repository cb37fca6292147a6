package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

// maxAnswer bounds what a Client reads: a million certificates fit.
const maxAnswer = 1 << 30

// Client asks a running process over its admin socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient takes the address in the spelling of the configuration: "unix:///run/gatelodge/admin.sock".
func NewClient(listen string) (*Client, error) {
	path, err := socketPath(listen)
	if err != nil {
		return nil, err
	}
	c := &Client{path: path}
	c.http = &http.Client{
		Timeout:   readTime + reloadTime + answerTime,
		Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true, DisableCompression: true},
	}
	return c, nil
}

// dial connects, unless the socket is somebody else's: who can write to its folder could answer in the server's place. Root trusts the path.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	uid, err := peerUID(conn.(*net.UnixConn))
	if me := os.Geteuid(); err == nil && me != 0 && !permitted(uid, me) {
		err = fmt.Errorf("the user %d answers there", uid)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Cert returns the certificate of one name. The error wraps ErrUnknownName if there is none.
func (c *Client) Cert(ctx context.Context, name string) (CertStatus, error) {
	var cert CertStatus
	err := c.do(ctx, http.MethodGet, "/certs/"+url.PathEscape(name), &cert)
	return cert, err
}

// Config returns the configuration in force, as JSON.
func (c *Client) Config(ctx context.Context) (json.RawMessage, error) {
	var cfg json.RawMessage
	err := c.do(ctx, http.MethodGet, "/config", &cfg)
	return cfg, err
}

// Reload makes the process read its configuration again, and returns which that is. A file that is not empty is the one with which the process must run, else it is an error.
func (c *Client) Reload(ctx context.Context, file string) (Reloaded, error) {
	var r Reloaded
	err := c.do(ctx, http.MethodPost, "/reload"+withFile(file), &r)
	return r, err
}

// Upgrade makes the process hand over to a new one, whose id it returns. The file is as for Reload.
func (c *Client) Upgrade(ctx context.Context, file string) (Upgraded, error) {
	var u Upgraded
	err := c.do(ctx, http.MethodPost, "/upgrade"+withFile(file), &u)
	return u, err
}

// Revoke revokes the certificate of a name. The error wraps ErrUnknownName if there is none, and is ErrGoesOn if it takes long.
func (c *Client) Revoke(ctx context.Context, name string, r Revocation) error {
	query := url.Values{"reason": {strconv.Itoa(r.Reason)}, "compromised": {strconv.FormatBool(r.Compromised)}}
	return c.do(ctx, http.MethodPost, "/certs/"+url.PathEscape(name)+"/revoke?"+query.Encode(), nil)
}

// CAs returns the ACME CAs in the order of the configuration.
func (c *Client) CAs(ctx context.Context) ([]CAStatus, error) {
	var all []CAStatus
	err := c.do(ctx, http.MethodGet, "/acme", &all)
	return all, err
}

// Probe makes the process look at a CA's directories now.
func (c *Client) Probe(ctx context.Context, name string) (CAStatus, error) {
	return c.lookAt(ctx, name, "probe")
}

// Reset makes the whole fleet forget how the CA's protocol was found.
func (c *Client) Reset(ctx context.Context, name string) (CAStatus, error) {
	return c.lookAt(ctx, name, "reset")
}

// RollKey gives the account at a CA another key.
func (c *Client) RollKey(ctx context.Context, name string) (CAStatus, error) {
	return c.lookAt(ctx, name, "rollkey")
}

// Upstreams returns the upstreams by name.
func (c *Client) Upstreams(ctx context.Context) ([]UpstreamStatus, error) {
	var all []UpstreamStatus
	err := c.do(ctx, http.MethodGet, "/upstreams", &all)
	return all, err
}

func (c *Client) lookAt(ctx context.Context, name, how string) (CAStatus, error) {
	var ca CAStatus
	err := c.do(ctx, http.MethodPost, "/acme/"+url.PathEscape(name)+"/"+how, &ca)
	return ca, err
}

func (c *Client) do(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.path, err)
	}
	if res.StatusCode == http.StatusAccepted {
		return ErrGoesOn
	}
	if res.StatusCode != http.StatusOK {
		return refused(res, body)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.path, err)
	}
	return nil
}

// refused turns a refusal back into the error that it was.
func refused(res *http.Response, body []byte) error {
	var r refusal
	if err := json.Unmarshal(body, &r); err != nil || r.Error == "" {
		return fmt.Errorf("the running gatelodge answers %s: is it of another version?", res.Status)
	}
	if res.StatusCode == http.StatusNotFound {
		return &unknownName{r.Error}
	}
	return errors.New(r.Error)
}

// unknownName keeps the server's words.
type unknownName struct{ text string }

func (e *unknownName) Error() string { return e.text }
func (e *unknownName) Unwrap() error { return ErrUnknownName }

// explain says what to do about a server that cannot be reached.
func (c *Client) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no gatelodge answers at %s: is it running, and is admin.listen the same?", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is for the user that gatelodge runs as, and root: use sudo", c.path)
	}
	return fmt.Errorf("ask the running gatelodge at %s: %w", c.path, err)
}
