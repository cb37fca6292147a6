package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
)

// twoNodes are the configurations of two processes on one storage folder; one site is open to all, one asks for client certificates.
func twoNodes(t *testing.T) (*lodge, [2]string) {
	l := newBareLodge(t)
	ca, err := devca.New(devca.Config{Dir: l.path("ca")})
	if err != nil {
		t.Fatal(err)
	}
	l.write("partners.pem", string(ca.RootPEM()))
	nodes := [2]string{l.https, freeAddr(t)}
	for i, https := range nodes {
		l.write(fmt.Sprintf("node%d.toml", i), fmt.Sprintf(`
[listen]
https = [%q]
http  = []
[storage]
path = %q
[admin]
listen  = ""
metrics = ""
[log]
format = "text"
access = "off"
[client_auth.partners]
ca = [%q]
[[site]]
hosts = ["open.internal"]
to    = %q
[[site]]
hosts       = ["closed.internal"]
to          = %q
client_auth = "partners"
`, https, l.path("storage"), l.path("partners.pem"), l.upstream.URL, l.upstream.URL))
	}
	return l, nodes
}

// visit makes one request on a connection of its own, with the session if there is one, and returns whether it resumed and a session for the next.
func visit(addr, name string, version uint16, with *tls.ClientSessionState) (resumed bool, next *tls.ClientSessionState, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cache := &oneSession{state: with}
	dialer := &tls.Dialer{Config: &tls.Config{
		ServerName: name, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, ClientSessionCache: cache,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name); err != nil {
		return false, nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, nil, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return false, nil, err
	}
	return conn.(*tls.Conn).ConnectionState().DidResume, cache.state, statusError(res.StatusCode)
}

// oneSession is a cache that has one session, for whatever name it is asked.
type oneSession struct{ state *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool)  { return o.state, o.state != nil }
func (o *oneSession) Put(_ string, state *tls.ClientSessionState) { o.state = state }

// ageTicketKeys makes the stored keys nine hours older, so that another is due.
func (l *lodge) ageTicketKeys() {
	l.t.Helper()
	disk, err := storage.OpenDisk(l.path("storage"), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer disk.Close()
	data, _, err := disk.Get(l.t.Context(), "tickets/keys")
	if err != nil {
		l.t.Fatal(err)
	}
	var set struct {
		Keys []struct {
			From time.Time `json:"from"`
			Key  []byte    `json:"key"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		l.t.Fatal(err)
	}
	for i := range set.Keys {
		set.Keys[i].From = set.Keys[i].From.Add(-9 * time.Hour)
	}
	if data, err = json.Marshal(set); err != nil {
		l.t.Fatal(err)
	}
	if _, err := disk.Put(l.t.Context(), "tickets/keys", data); err != nil {
		l.t.Fatal(err)
	}
}

func TestTickets_ResumeAtTheOtherProcessOfAStoreAndAfterARotation(t *testing.T) {
	l, nodes := twoNodes(t)
	var running [2]*process
	restart := func() {
		t.Helper()
		for i := range running {
			if running[i] != nil {
				running[i].kill()
			}
			running[i] = l.startProcessWith(l.path(fmt.Sprintf("node%d.toml", i)))
		}
	}
	restart()
	defer func() { running[0].kill(); running[1].kill() }()
	versions := map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}
	old := map[string]*tls.ClientSessionState{}
	for name, version := range versions {
		_, session, err := visit(nodes[0], "open.internal", version, nil)
		if err != nil || session == nil {
			t.Fatalf("%s: session %v: %v\n%s", name, session, err, running[0].log)
		}
		old[name] = session
		if resumed, _, err := visit(nodes[1], "open.internal", version, session); err != nil || !resumed {
			t.Errorf("%s at the other process: resumed %v, %v", name, resumed, err)
		}
		if _, _, err := visit(nodes[1], "closed.internal", version, session); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
			t.Errorf("%s: a ticket of the open site at the other one, which asks for a certificate: %v", name, err)
		}
	}
	for _, what := range []string{"with the next key known", "with the next key in use"} {
		l.ageTicketKeys()
		restart()
		for name, version := range versions {
			if resumed, _, err := visit(nodes[1], "open.internal", version, old[name]); err != nil || !resumed {
				t.Errorf("%s, %s: an old ticket resumed %v, %v", name, what, resumed, err)
			}
			_, session, err := visit(nodes[1], "open.internal", version, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resumed, _, err := visit(nodes[0], "open.internal", version, session); err != nil || !resumed {
				t.Errorf("%s, %s: a new ticket resumed %v, %v", name, what, resumed, err)
			}
		}
	}
}

func TestTickets_OfAProcessAloneAreWorthNothingElsewhereAndAReloadChangesTheMode(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	_, shared, err := visit(l.https, "a.test", tls.VersionTLS13, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.configure(l.ca.DirectoryURL(), "[tls]\nsession_tickets = \"local\"\n")
	if err := l.program.reload(); err != nil {
		t.Fatal(err)
	}
	if resumed, _, err := visit(l.https, "a.test", tls.VersionTLS13, shared); err != nil || resumed {
		t.Errorf("a shared ticket resumed by local keys: %v, %v", resumed, err)
	}
	_, local, err := visit(l.https, "a.test", tls.VersionTLS13, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resumed, _, err := visit(l.https, "a.test", tls.VersionTLS13, local); err != nil || !resumed {
		t.Errorf("a local ticket resumed %v, %v", resumed, err)
	}
	l.configure(l.ca.DirectoryURL(), "[tls]\nsession_tickets = \"shared\"\n")
	if err := l.program.reload(); err != nil {
		t.Fatal(err)
	}
	if resumed, _, err := visit(l.https, "a.test", tls.VersionTLS13, shared); err != nil || !resumed {
		t.Errorf("the shared keys after a reload: resumed %v, %v", resumed, err)
	}
}
