package storage

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
)

// about is the first line of a stored bundle: what chain and key do not say themselves.
type about struct {
	Names      []string          `json:"names"`
	CA         string            `json:"ca,omitempty"`
	NotBefore  time.Time         `json:"not_before"`
	NotAfter   time.Time         `json:"not_after"`
	Issued     time.Time         `json:"issued,omitzero"`
	Fence      uint64            `json:"fence,omitempty"`
	RenewStart time.Time         `json:"renew_start,omitzero"`
	RenewEnd   time.Time         `json:"renew_end,omitzero"`
	Notes      map[string]string `json:"notes,omitempty"`
}

func newAbout(b *Bundle) *about {
	return &about{
		Names: b.Names, CA: b.CA, NotBefore: stored(b.NotBefore), NotAfter: stored(b.NotAfter), Issued: stored(b.Issued),
		Fence: b.Fence, RenewStart: stored(b.RenewStart), RenewEnd: stored(b.RenewEnd), Notes: b.Notes,
	}
}

// stored is the time as it comes back from storage: UTC, whole seconds, as certificates have it.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}

// fields are where the members of the line go.
func (a *about) fields() map[string]any {
	return map[string]any{
		"names": &a.Names, "ca": &a.CA, "not_before": &a.NotBefore, "not_after": &a.NotAfter, "issued": &a.Issued,
		"fence": &a.Fence, "renew_start": &a.RenewStart, "renew_end": &a.RenewEnd, "notes": &a.Notes,
	}
}

// fromLeaf sets what is missing but said by the certificate too.
func (a *about) fromLeaf(leaf *x509.Certificate) {
	if len(a.Names) == 0 {
		a.Names = append(a.Names, leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			a.Names = append(a.Names, ip.String())
		}
	}
	if a.NotBefore.IsZero() {
		a.NotBefore = leaf.NotBefore
	}
	if a.NotAfter.IsZero() {
		a.NotAfter = leaf.NotAfter
	}
}

func (a *about) fill(b *Bundle) {
	b.Names, b.CA, b.NotBefore, b.NotAfter, b.Issued = a.Names, a.CA, a.NotBefore, a.NotAfter, a.Issued
	b.Fence, b.RenewStart, b.RenewEnd, b.Notes = a.Fence, a.RenewStart, a.RenewEnd, a.Notes
}

// write writes the line, its format first.
func (a *about) write(out *bytes.Buffer, extra map[string]json.RawMessage) error {
	line, err := json.Marshal(struct {
		Format int `json:"format"`
		*about
	}{bundleFormat, a})
	if err != nil {
		return err
	}
	extra = maps.Clone(extra)
	for name := range a.fields() {
		delete(extra, name)
	}
	delete(extra, "format")
	if len(extra) > 0 {
		more, err := json.Marshal(extra) // compacts, so that it stays one line
		if err != nil {
			return err
		}
		line = append(append(line[:len(line)-1], ','), more[1:]...)
	}
	out.Write(line)
	out.WriteByte('\n')
	return nil
}

// readAbout reads the line member by member, so that one that is broken spoils no other. The error says what was lost; all else is good.
func readAbout(line []byte) (*about, map[string]json.RawMessage, error) {
	a := new(about)
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return a, nil, fmt.Errorf("its first line cannot be read: %w", err)
	}
	var format int
	var lost []error
	if err := json.Unmarshal(members["format"], &format); err != nil || format < 1 {
		lost = append(lost, errors.New("its format is not given"))
	} else if format > bundleFormat {
		lost = append(lost, fmt.Errorf("its format %d is newer than this program's (%d)", format, bundleFormat))
	}
	delete(members, "format")
	for name, field := range a.fields() {
		value, ok := members[name]
		if !ok {
			continue
		}
		delete(members, name)
		if err := json.Unmarshal(value, field); err != nil {
			lost = append(lost, fmt.Errorf("its member %q cannot be read: %w", name, err))
		}
	}
	if len(members) == 0 {
		members = nil
	}
	return a, members, errors.Join(lost...)
}
