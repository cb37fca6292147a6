package ticketkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gatelodge/storage"
)

const (
	period = 8 * time.Hour // how long a key seals

	// lead is how long a new key is known before it seals. Nodes look for it within the first third of it.
	lead = 30 * time.Minute

	// lookAgain bounds the time between two looks: for keys that came out of turn.
	lookAgain = time.Hour

	// kept is how many keys there are: the next, the one that seals, and three former ones. So a ticket is good for a day at least, and what was sealed under a
	// key is open to whoever finds the keys for a day and a half at most.
	kept = 5
)

// keySet is what is stored: the newest key first.
type keySet struct {
	Keys []ticketKey `json:"keys"`
}

// ticketKey is one key. Printing one shows nothing of it.
type ticketKey struct {
	From time.Time `json:"from"` // it seals from then on, until the next does
	Key  []byte    `json:"key"`  // 32 bytes
}

// Format implements fmt.Formatter: every verb prints when it seals.
func (k ticketKey) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session ticket key from %s", k.From.Format(time.RFC3339))
}

func decode(data []byte) (keySet, error) {
	var set keySet
	if err := json.Unmarshal(data, &set); err != nil {
		return keySet{}, storage.NewCorruptError(object, data, errors.New("not the keys of session tickets")) // a cause might quote one
	}
	if len(set.Keys) == 0 {
		return keySet{}, storage.NewCorruptError(object, data, io.ErrUnexpectedEOF)
	}
	for _, k := range set.Keys {
		if len(k.Key) != 32 {
			return keySet{}, storage.NewCorruptError(object, data, fmt.Errorf("a key of session tickets has %d bytes", len(k.Key)))
		}
	}
	slices.SortStableFunc(set.Keys, func(a, b ticketKey) int { return b.From.Compare(a.From) })
	return set, nil
}

// sealing returns the place of the key that seals: the newest whose time has come, or the oldest if none has.
func (s keySet) sealing(now time.Time) int {
	for i, k := range s.Keys {
		if !k.From.After(now) {
			return i
		}
	}
	return len(s.Keys) - 1
}

// inUse returns the keys as a TLS server takes them: the one that seals first.
func (s keySet) inUse(now time.Time) [][32]byte {
	if len(s.Keys) == 0 {
		return nil
	}
	first := s.sealing(now)
	keys := [][32]byte{[32]byte(s.Keys[first].Key)}
	for i, k := range s.Keys {
		if i != first {
			keys = append(keys, [32]byte(k.Key))
		}
	}
	return keys
}

// due is when the next key is to be made: so that it is known for the time of lead before it seals.
func (s keySet) due() time.Time {
	if len(s.Keys) == 0 {
		return time.Time{}
	}
	return s.Keys[0].From.Add(period - lead)
}

// rotated returns the set with a new key if one is due. The first key of all seals at once: there are no tickets yet.
//
// Times of other hosts count here. A key that seals later than any honest node would have written, by a clock that is far ahead, is dropped with the next new key;
// where all keys are in the future it is our clock that is wrong, and nothing is written.
func (s keySet) rotated(now time.Time, fresh func() [32]byte) (keySet, bool) {
	honest := s
	for len(honest.Keys) > 0 && honest.Keys[0].From.After(now.Add(period)) {
		honest.Keys = honest.Keys[1:]
	}
	if len(s.Keys) > 0 && len(honest.Keys) == 0 || now.Before(honest.due()) {
		return s, false
	}
	from := now
	if len(honest.Keys) > 0 {
		from = later(now.Add(lead), honest.Keys[0].From.Add(period))
	}
	key := fresh()
	next := keySet{Keys: append([]ticketKey{{From: from.UTC().Truncate(time.Second), Key: key[:]}}, honest.Keys...)}
	next.Keys = next.Keys[:min(len(next.Keys), kept)]
	return next, true
}

// nextLook returns how long it is until something is to be done: another key seals, or a new one is due, which each node finds at a moment of its own (chance, in
// [0,1)).
func (s keySet) nextLook(now time.Time, chance float64) time.Duration {
	at := now.Add(lookAgain)
	if due := s.due().Add(time.Duration(chance * float64(lead) / 3)); due.After(now) {
		at = earlier(at, due)
	}
	for _, k := range s.Keys {
		if k.From.After(now) {
			at = earlier(at, k.From)
		}
	}
	return at.Sub(now)
}

func later(a, b time.Time) time.Time   { return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare) }
func earlier(a, b time.Time) time.Time { return slices.MinFunc([]time.Time{a, b}, time.Time.Compare) }
