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
	"strings"
	"sync"
	"syscall"
	"time"
)

// crowdVariable tells a process of this program that it is clients, and which ones.
const crowdVariable = "HANDSHAKEFLOOD_CROWD"

// crowdSize is how many connections a process of clients has at most.
const crowdSize = 8000

// crowd is what one process of clients does.
type crowd struct {
	Address string
	Labels  string // see floodCase
	Names   int
	First   int // number of the first connection: numbers choose names and addresses
	Count   int
	Silent  bool
}

// outcome is how its handshakes ended.
type outcome struct {
	Served, Alert, Closed, Timeout, Refused int

	Longest time.Duration
}

func (o *outcome) add(other outcome) {
	o.Served += other.Served
	o.Alert += other.Alert
	o.Closed += other.Closed
	o.Timeout += other.Timeout
	o.Refused += other.Refused
	o.Longest = max(o.Longest, other.Longest)
}

func (o outcome) String() string {
	return fmt.Sprintf("%d served, %d got an alert, %d were closed, %d waited for a minute, %d could not connect; the longest took %v",
		o.Served, o.Alert, o.Closed, o.Timeout, o.Refused, o.Longest.Round(time.Millisecond))
}

// sendCrowds lets so many clients come at once, in processes of their own, and waits for the last of them.
func sendCrowds(ctx context.Context, address string, c floodCase, count, first int) (sum outcome, err error) {
	self, err := os.Executable()
	if err != nil {
		return sum, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for count > 0 {
		order, err := json.Marshal(crowd{Address: address, Labels: c.labels, Names: c.names, First: first, Count: min(count, crowdSize), Silent: c.silent})
		if err != nil {
			return sum, err
		}
		count, first = count-crowdSize, first+crowdSize
		all.Go(func() {
			cmd := exec.CommandContext(ctx, self)
			cmd.Env = append(os.Environ(), crowdVariable+"="+string(order))
			cmd.Stderr = os.Stderr
			said, runErr := cmd.Output()
			var o outcome
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, runErr, json.Unmarshal(said, &o))
			sum.add(o)
		})
	}
	all.Wait()
	return sum, err
}

// beCrowd is the main function of a process of clients.
func beCrowd(order string, out io.Writer) error {
	var c crowd
	if err := json.Unmarshal([]byte(order), &c); err != nil {
		return err
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil { // as if they were on other machines
		return err
	}
	var mu sync.Mutex
	var sum outcome
	var all sync.WaitGroup
	dialing := make(chan struct{}, 256) // more would only fill the server's backlog, and be lost
	for i := range c.Count {
		all.Go(func() {
			o := c.visit(c.First+i, dialing)
			mu.Lock()
			defer mu.Unlock()
			sum.add(o)
		})
	}
	all.Wait()
	w := bufio.NewWriter(out)
	if err := json.NewEncoder(w).Encode(sum); err != nil {
		return err
	}
	return w.Flush()
}

// visit is one connection.
func (c crowd) visit(i int, dialing chan struct{}) (o outcome) {
	dialing <- struct{}{}
	from := &net.TCPAddr{IP: net.IPv4(127, byte(1+i>>16), byte(i>>8), byte(i))}
	conn, err := (&net.Dialer{LocalAddr: from, Timeout: time.Minute}).Dial("tcp", c.Address)
	<-dialing
	if err != nil {
		return outcome{Refused: 1}
	}
	defer conn.Close()
	began := time.Now()
	_ = conn.SetDeadline(began.Add(time.Minute))
	if c.Silent {
		_, err = io.Copy(io.Discard, conn)
	} else {
		err = tls.Client(conn, &tls.Config{
			ServerName: c.name(i), InsecureSkipVerify: true, // nobody looks at what is served
			MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, // cheap for the clients, who share the machine
		}).Handshake()
	}
	o.Longest = time.Since(began)
	switch {
	case err == nil && !c.Silent:
		o.Served = 1
	case errors.Is(err, os.ErrDeadlineExceeded):
		o.Timeout = 1
	case err != nil && strings.Contains(err.Error(), "remote error: tls:"):
		o.Alert = 1
	default:
		o.Closed = 1
	}
	return o
}

// name is what the i-th connection asks for.
func (c crowd) name(i int) string {
	suffix := ".test"
	if strings.Contains(c.Labels, ".") {
		suffix = ""
	}
	switch c.Names {
	case 1:
		return c.Labels + suffix
	case 0:
		return fmt.Sprintf("n%d-%s%s", i, c.Labels, suffix)
	}
	return fmt.Sprintf("n%d-%s%s", i%c.Names, c.Labels, suffix)
}
