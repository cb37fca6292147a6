package certs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatelodge/storage"
)

// The reasons that every CA takes from a subscriber (RFC 5280 §5.3.1). Another would take the certificate away, and be refused by the CA until it has ended.
const (
	ReasonUnspecified          = 0
	ReasonKeyCompromise        = 1
	ReasonSuperseded           = 4
	ReasonCessationOfOperation = 5
)

// Errors of Revoke and Compromised. Where an error wraps neither ErrUnderWay nor, of Compromised, ErrCannotRevoke, nothing was done.
var (
	// ErrUnderWay: the revocation is entered and goes on by itself, across restarts; what else the error says is why it is not done yet.
	ErrUnderWay = errors.New("it is under way, and tried until it is done")

	// ErrCannotRevoke: the CA has no revocation. Revoke does nothing then; Compromised has replaced the certificate and blocked its key.
	ErrCannotRevoke = errors.New("certs: the CA of the certificate does not revoke")

	ErrNoCertificate = errors.New("certs: there is no stored certificate for the name")
)

// Revoke has the certificates of a host or wildcard revoked by their CAs, by our account there, else by the certificate's own key. They are gone first: from the
// memory of this process at once, from storage, from the memory of others within a minute. If a site claims the name, new ones are obtained. With
// ReasonKeyCompromise the key is blocked for ever; but see Compromised, which leaves nobody without a certificate.
//
// It returns when the CAs have done it, or have failed to once, or when ctx ends; in the latter two cases with an error that wraps ErrUnderWay.
func (m *Manager) Revoke(ctx context.Context, name string, reason int) error {
	switch reason {
	case ReasonUnspecified, ReasonKeyCompromise, ReasonSuperseded, ReasonCessationOfOperation:
	default:
		return fmt.Errorf("revoke %s: %d is no reason that CAs take from a subscriber: 0 unspecified, 1 key compromise, 4 superseded, 5 cessation of operation", name, reason)
	}
	return m.withdraw(ctx, name, reason, false)
}

// Compromised deals with a private key that others may know: it is blocked for ever, replaced by a certificate with a new key that goes before all other orders, and
// only when that is in use everywhere is the old one revoked (ReasonKeyCompromise), and what is stored of its key removed. Until then the old one serves.
//
// Each step is found where it was left after a crash. It returns as Revoke does.
func (m *Manager) Compromised(ctx context.Context, name string) error {
	return m.withdraw(ctx, name, ReasonKeyCompromise, true)
}

func (m *Manager) withdraw(ctx context.Context, name string, reason int, compromised bool) error {
	if s, t := m.begin(name); t.file != nil {
		return fmt.Errorf("the site of %s brings its own certificate: revoke it where it comes from and replace the files", name)
	} else if s.For != "" {
		return fmt.Errorf("%s is served with the certificate of %s: name that", name, s.Name)
	}
	list, err := m.toRevoke(ctx, name, reason, compromised)
	if err != nil {
		return err
	}
	if m.life() == nil {
		return errClosed
	}
	if err := m.revocations.add(ctx, list); err != nil {
		return err
	}
	m.obey()
	errands := make([]errand, len(list))
	for i, r := range list {
		var runs bool
		if errands[i], runs = m.carryOut(r.leaf); !runs {
			return fmt.Errorf("revoke %s: %w, after the next start: %w", name, ErrUnderWay, errClosed)
		}
	}
	var errs []error
	for i, e := range errands {
		switch err := m.revocations.await(ctx, e); {
		case errors.Is(err, ErrCannotRevoke):
			errs = append(errs, fmt.Errorf("the certificate of %s is replaced and its key is blocked, but: %w", list[i].Name, err))
		case err != nil:
			errs = append(errs, fmt.Errorf("the certificate of %s is not revoked yet, %w: %w", list[i].Name, ErrUnderWay, err))
		}
	}
	return errors.Join(errs...)
}

// toRevoke are the stored certificates of the name, for keys of whatever algorithm.
func (m *Manager) toRevoke(ctx context.Context, name string, reason int, compromised bool) ([]revocation, error) {
	var list []revocation
	for _, suffix := range []string{"", "+ecdsa", "+rsa"} {
		own := name + suffix
		if m.unsaved.get(own) != nil {
			return nil, fmt.Errorf("the certificate of %s could not be stored yet: try again when storage works", own)
		}
		if len(own) > maxName {
			continue
		}
		b, _, err := loadStored(ctx, m.store, certObject(own), m.log)
		if errors.Is(err, storage.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the certificate of %s: %w", own, err)
		}
		if _, revokes := m.rules.Load().issuer(b.CA).(Revoker); !revokes && !compromised {
			return nil, fmt.Errorf("revoke %s: %w: it is of CA %q", own, ErrCannotRevoke, b.CA)
		}
		r, err := newRevocation(own, b)
		if err != nil {
			return nil, err
		}
		r.Reason, r.Compromised = reason, compromised
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("revoke %s: %w", name, ErrNoCertificate)
	}
	return list, nil
}

func newRevocation(name string, b *storage.Bundle) (revocation, error) {
	pair, err := b.TLSCertificate()
	if err != nil {
		return revocation{}, fmt.Errorf("read the certificate of %s: %w", name, err)
	}
	key, err := keySum(pair.Leaf.PublicKey)
	if err != nil {
		return revocation{}, err
	}
	return revocation{
		Name: name, CA: b.CA, Serial: pair.Leaf.SerialNumber.Text(16), Key: key, NotAfter: pair.Leaf.NotAfter,
		Begun: time.Now().UTC().Truncate(time.Second), Certificate: b.Chain[0], leaf: sha256.Sum256(b.Chain[0]),
	}, nil
}

// issuer returns the CA of that name, nil if there is none (any more).
func (r *rules) issuer(name string) Issuer {
	for _, ca := range r.CAs {
		if ca.Issuer.Name() == name {
			return ca.Issuer
		}
	}
	return nil
}

// Revocation is what a person should know of a certificate that is, or is being, revoked.
type Revocation struct {
	Name        string    `json:"name"` // the certificate's own: a host or wildcard, with "+rsa" or "+ecdsa" for a second one
	CA          string    `json:"ca"`
	Serial      string    `json:"serial"` // hexadecimal
	Key         string    `json:"key"`    // SHA-256 of its public key
	Reason      int       `json:"reason"`
	Compromised bool      `json:"compromised,omitempty"`
	Begun       time.Time `json:"begun"`
	Gone        time.Time `json:"gone,omitzero"` // not served since then: replaced, or taken away
	Done        time.Time `json:"done,omitzero"`
	Problem     string    `json:"problem,omitempty"` // why it is not done yet, or could not be done
}

// Revocations tells about all revocations of certificates that have not ended yet, as of the last minute; the latest first.
func (m *Manager) Revocations() []Revocation {
	var all []Revocation
	for leaf, r := range *m.revocations.known.Load() {
		problem := r.Unrevoked
		if err := m.revocations.problem(leaf); err != nil && r.Done.IsZero() {
			problem = err.Error()
		}
		all = append(all, Revocation{r.Name, r.CA, r.Serial, r.Key, r.Reason, r.Compromised, r.Begun, r.Gone, r.Done, problem})
	}
	slices.SortFunc(all, func(a, b Revocation) int {
		if c := b.Begun.Compare(a.Begun); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}
