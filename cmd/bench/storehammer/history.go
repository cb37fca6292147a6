package main

import (
	"errors"
	"fmt"
	"strings"
)

// A write is a line of the object that all processes write.
type write struct {
	Fence uint64 // of the lease under which it was written
	ID    string // no other write has the same
}

func (w write) String() string { return fmt.Sprintf("%d %s\n", w.Fence, w.ID) }

// parseHistory reads the object.
func parseHistory(data []byte) (history []write, err error) {
	for line := range strings.Lines(string(data)) {
		var w write
		if _, err := fmt.Sscanf(line, "%d %s\n", &w.Fence, &w.ID); err != nil {
			return nil, fmt.Errorf("line %q of the history: %w", line, err)
		}
		history = append(history, w)
	}
	return history, nil
}

// A Report is what came of it.
type report struct {
	WithoutCAS bool

	Acknowledged int // writes that a process was told are done
	Lost         int // of these: not in the object
	Unheard      int // in the object, but the process died before it said so
	Inversions   int // lines whose fence is not greater than that of the line before
	Refused      int // writes that compare-and-swap or the fence refused
	Unknown      int // writes that ended with another error
	Overlaps     int // sections begun while another process that was not stopped was inside; just after a stop there may be some

	Kills, Pauses int
}

// compare fills in what the object tells.
func (r *report) compare(history []write, acknowledged map[string]bool) {
	r.Acknowledged = len(acknowledged)
	found := make(map[string]bool, len(history))
	var last uint64
	for _, w := range history {
		found[w.ID] = true
		if w.Fence <= last {
			r.Inversions++
		}
		last = w.Fence
		if !acknowledged[w.ID] {
			r.Unheard++
		}
	}
	for id := range acknowledged {
		if !found[id] {
			r.Lost++
		}
	}
}

func (r *report) String() string {
	mode := "compare-and-swap"
	if r.WithoutCAS {
		mode = "plain writes (control)"
	}
	return fmt.Sprintf(`%s
killed %d, stopped %d
writes acknowledged %d, refused %d, of unknown outcome %d, in the object but not acknowledged %d
sections begun while another process ran inside %d
lost updates %d
fence inversions %d`, mode, r.Kills, r.Pauses, r.Acknowledged, r.Refused, r.Unknown, r.Unheard, r.Overlaps, r.Lost, r.Inversions)
}

// verdict is nil if the run shows what it should.
func (r *report) verdict() error {
	switch {
	case r.WithoutCAS && r.Lost == 0:
		return errors.New("no update was lost without compare-and-swap either: the hammer proves nothing")
	case r.WithoutCAS:
		return nil
	case r.Lost > 0 || r.Inversions > 0:
		return fmt.Errorf("%d lost updates and %d fence inversions: this store cannot be shared", r.Lost, r.Inversions)
	}
	return nil
}
