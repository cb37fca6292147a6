package main

import (
	"crypto/tls"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatelodge/acmeclient/devca"
)

// RFC 8441 §3: a client may open a WebSocket on a stream only if the server's first SETTINGS said that it may.
func TestProgram_OffersWebSocketsOnStreamsOfHTTP2(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("chat.test"); err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", l.https, &tls.Config{ServerName: "chat.test", RootCAs: l.roots, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is %v", frame)
	}
	if value, ok := settings.Value(http2.SettingEnableConnectProtocol); !ok || value != 1 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d, %v", value, ok)
	}
}
