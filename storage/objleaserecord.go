package storage

import (
	"encoding/json"
	"fmt"
	"time"
)

// A leaseRecord is what a lease's object says, in JSON.
type leaseRecord struct {
	State   string `json:"state"`             // leaseHeld or leaseFree
	Holder  string `json:"holder"`            // host, process id and a random part: the process that holds it, or was the last to
	Witness string `json:"witness,omitempty"` // how other processes of the holder's host can tell that it is dead
	Fence   uint64 `json:"fence"`             // its fence; kept when it is free, so that the next is greater
	LeaseMS int64  `json:"lease_ms"`          // how long the holder goes on without a beat
	Beat    uint64 `json:"beat"`              // how often it was renewed; for people
}

const (
	leaseHeld = "held"
	leaseFree = "free"
)

// maxForeignLease bounds what a record can make others wait.
const maxForeignLease = time.Hour

func (r leaseRecord) encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic("storage: a lease's record cannot be encoded: " + err.Error()) // it is strings and numbers
	}
	return data
}

func parseLeaseRecord(data []byte) (r leaseRecord, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return leaseRecord{}, fmt.Errorf("not the record of a lease: %w", err)
	}
	if r.State != leaseHeld && r.State != leaseFree || r.Holder == "" {
		return leaseRecord{}, fmt.Errorf("not the record of a lease: state %q, holder %q", r.State, r.Holder)
	}
	if r.Fence == 0 || r.Fence >= 1<<63 {
		return leaseRecord{}, fmt.Errorf("not the record of a lease: fence %d", r.Fence)
	}
	return r, nil
}

// valid is how long the holder takes the lease for its own after a beat; ours if it does not say.
func (r leaseRecord) valid(ours time.Duration) time.Duration {
	if r.LeaseMS <= 0 {
		return ours
	}
	if r.LeaseMS > maxForeignLease.Milliseconds() {
		return maxForeignLease
	}
	return time.Duration(r.LeaseMS) * time.Millisecond
}
