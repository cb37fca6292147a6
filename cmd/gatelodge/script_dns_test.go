package main

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"gatelodge/acmeclient/devca"
)

// scriptCA: ca VAR ROOT HTTP HTTPS [TIME [LIFE]]: starts a CA that validates every name at the two addresses, whatever the DNS says, takes the time to issue certificates,
// and lets them live for the other; it sets the variable to its directory and writes its root to the file.
func scriptCA(ts *testscript.TestScript, _ bool, args []string) {
	cfg := devca.Config{PlainHTTP: true, HTTPAddr: args[2], TLSAddr: args[3]}
	for i, set := range []*time.Duration{&cfg.ProcessingTime, &cfg.Lifetime} {
		if len(args) > 4+i {
			var err error
			*set, err = time.ParseDuration(args[4+i])
			ts.Check(err)
		}
	}
	ca, err := devca.New(cfg)
	ts.Check(err)
	ts.Check(ca.Start(context.Background()))
	ts.Defer(func() { _ = ca.Close() })
	ts.Setenv(args[0], ca.DirectoryURL())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), ca.RootPEM(), 0o600))
}

// scriptNameServer: nameserver VAR FILE: starts a DNS server over UDP and sets the variable to its address. The file has a record a line, in the syntax of a zone file,
// and is read for each question: what it does not have does not exist.
func scriptNameServer(ts *testscript.TestScript, _ bool, args []string) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	ts.Check(err)
	file := ts.MkAbs(args[1])
	started, ended := make(chan struct{}), make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(answerFrom(file, r))
	})}
	go func() {
		defer close(ended)
		_ = srv.ActivateAndServe()
	}()
	<-started
	ts.Defer(func() {
		_ = srv.Shutdown()
		<-ended
	})
	ts.Setenv(args[0], pc.LocalAddr().String())
}

func answerFrom(file string, r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
	zone, err := os.ReadFile(file)
	if err != nil || len(r.Question) != 1 {
		return new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)
	}
	q := r.Question[0]
	for line := range strings.Lines(string(zone)) {
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil || !strings.EqualFold(rr.Header().Name, q.Name) {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == q.Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}
