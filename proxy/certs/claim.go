package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatelodge/storage"
)

// question is a certificate that its CA is to be asked about.
type question struct {
	name string
	item planItem
	ca   RenewalInformer
}

// claim takes it on us to ask about those of the certificates that no other process has asked about, or is just asking about: their next question is moved
// to until by compare-and-swap, and who sees that stays away. It returns them, and what others heard about the rest. One read and one write for a shard.
func (x *index) claim(ctx context.Context, shard int, due []question, until time.Time) (mine []question, heard map[string]suggestion, err error) {
	for range 10 {
		file, version, err := x.read(ctx, shard)
		if err != nil {
			return nil, nil, err
		}
		if mine, heard = file.claim(due, until); len(mine) == 0 {
			return nil, heard, nil
		}
		data, err := json.Marshal(file)
		if err != nil {
			return nil, nil, fmt.Errorf("encode index: %w", err)
		}
		writing, cancel := context.WithTimeout(ctx, storeTimeout)
		_, err = x.store.PutIf(writing, indexObject(shard), data, version)
		cancel()
		if err == nil {
			return mine, heard, nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return nil, nil, fmt.Errorf("write %s: %w", indexObject(shard), err)
		}
	}
	return nil, nil, fmt.Errorf("write %s: %w", indexObject(shard), storage.ErrConflict)
}

func (f *indexShardFile) claim(due []question, until time.Time) (mine []question, heard map[string]suggestion) {
	now := time.Now().Unix()
	heard = map[string]suggestion{}
	for _, q := range due {
		e, there := f.Names[q.name]
		if there && e.Said != nil && e.Said.Next > now {
			heard[q.name] = *e.Said
			continue
		}
		if !there {
			e = indexEntry{CA: q.item.ca, NotAfter: q.item.ends, RenewAt: q.item.due.UTC().Truncate(time.Second)}
		}
		said := *q.item.said
		if e.Said != nil && e.Said.newerThan(&said) {
			said = *e.Said
		}
		said.Next = until.Unix()
		e.Said = &said
		f.Names[q.name] = e
		mine = append(mine, q)
	}
	return mine, heard
}
