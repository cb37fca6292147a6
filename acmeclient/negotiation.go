package acmeclient

import "time"

// The negotiation decides which ACME is spoken with a CA: v2 first, v1 only on evidence (DESIGN 3.3). This file is the decision alone, a function of what is
// known and what was just seen; negotiate.go looks, remembers and acts.
//
// Evidence for v1 is a v1 directory where the operator said there is one: at `directory`, or at `directory_v1` once `directory` is absent for certain. Timeouts,
// outages, refusals, web pages and failed requests are none: whoever can break the connection to a CA must not be able to choose its protocol. And once v2 was
// seen, no evidence is enough but a person's word.

// negotiationState is where the negotiation with a CA stands.
type negotiationState string

const (
	stateUnknown   negotiationState = ""                    // nothing is known for certain
	stateV2        negotiationState = "v2"                  // spoken from now on, whatever may be seen
	stateV1        negotiationState = "v1"                  // spoken until v2 is offered
	stateUpgrading negotiationState = "v1-upgrading"        // v2 was offered; v1 is spoken until that is confirmed and v2 knows the account
	stateSuspected negotiationState = "downgrade-suspected" // v2 was spoken, and is gone: nothing is spoken
)

// String has a word for the zero value too.
func (s negotiationState) String() string {
	if s == stateUnknown {
		return "unknown"
	}
	return string(s)
}

// place is one of the addresses at which a CA may have a directory.
type place string

const (
	atDirectory   place = "directory"    // Config.Directory
	atDirectoryV1 place = "directory_v1" // Config.DirectoryV1
)

// class is what was seen at a place.
type class string

const (
	sawV2      class = "v2"        // 200, a JSON object with URLs for all keys of v2, whatever else
	sawV1      class = "v1"        // 200, a JSON object with URLs for all keys of v1, and no key of v2
	sawAbsent  class = "absent"    // 404, 410, 405, 501: the CA says that there is no directory
	sawNotACME class = "not-acme"  // any other answer: web pages, other JSON, empty bodies
	sawDenied  class = "denied"    // 401, 403, 407, or a redirect that we do not follow: brownouts, captive portals
	sawNothing class = "transient" // 429, 5xx, and no answer at all: timeouts, DNS, TLS
)

// sight is one look at a place.
type sight struct {
	place place
	class class
	says  string       // one line for a person
	v1    *v1Directory // what sawV1 saw
}

// rules are what the operator laid down.
type rules struct {
	protocol  Protocol
	v1Address bool // Config.DirectoryV1 is set
	asked     bool // a person asked for this look (Client.Probe)
}

// allowsV1 reports whether v1 may be spoken at all.
func (r rules) allowsV1() bool { return r.protocol != ProtocolV2 }

// action is what is to be done after a sight.
type action string

const (
	goOn      action = "go on"                // what is known is good
	giveUp    action = "give up"              // the look led nowhere; what is known stays
	lookAgain action = "look again"           // at the same place, absencePause later
	lookAtV1  action = "look at directory_v1" // at atDirectoryV1, now
	confirm   action = "confirm"              // look again at the same place upgradePause later, or at once when a person asked
	moveUp    action = "move up"              // make the account known over v2; then v2 is spoken
	alarm     action = "alarm"                // a person has to look
)

const (
	absencePause = 30 * time.Second // between the two looks that make an absence certain
	upgradePause = 10 * time.Minute // between the two looks that make an upgrade certain: not every node of a CA changes at the same time
)

// negotiation is what is known of a CA: the object acme/<ca>/negotiation, which the fleet shares. The zero value knows nothing.
type negotiation struct {
	State    negotiationState `json:"state,omitempty"`
	Since    time.Time        `json:"since,omitzero"`     // when State was entered
	Evidence string           `json:"evidence,omitempty"` // what led to it

	V2At   place        `json:"v2_at,omitempty"`  // where v2's directory is
	V2Seen time.Time    `json:"v2_seen,omitzero"` // last
	V1At   place        `json:"v1_at,omitempty"`  // where v1's directory is
	V1     *v1Directory `json:"v1,omitempty"`     // as last seen; kept after an upgrade, for orders to end where they began

	AbsentFirst time.Time `json:"absent_first,omitzero"` // of the absences in a row where v2 should be
	AbsentLast  time.Time `json:"absent_last,omitzero"`

	Trouble   string    `json:"trouble,omitempty"`   // what the last look was met with, if it was no good
	NextProbe time.Time `json:"next_probe,omitzero"` // when v1's CA is asked for v2 again
	Reset     time.Time `json:"reset,omitzero"`      // when a person last began it anew

	Directory   string `json:"directory"` // the addresses that all this is about
	DirectoryV1 string `json:"directory_v1,omitempty"`
}

// v1Directory is what a v1 directory said.
type v1Directory struct {
	URL       string            `json:"url"`
	Endpoints map[string]string `json:"endpoints"`
	Terms     string            `json:"terms,omitempty"`
	CAA       []string          `json:"caa,omitempty"` // names of the CA in CAA records
}

// next returns what is known after a sight, and what to do.
func (n negotiation) next(s sight, r rules, now time.Time) (negotiation, action) {
	after, act := n.noted(s, now).step(s, r, now)
	if s.class == sawV1 && s.place == after.V1At && (after.State == stateV1 || after.State == stateUpgrading) {
		after.V1 = s.v1
	}
	return after, act
}

func (n negotiation) step(s sight, r rules, now time.Time) (negotiation, action) {
	switch {
	case r.protocol == ProtocolV1:
		return n.nextForced(s, r, now)
	case n.State == stateUnknown:
		return n.nextUnknown(s, r, now)
	case n.State == stateV2:
		return n.nextV2(s, now)
	case n.State == stateSuspected:
		return n.nextSuspected(s, now)
	case !r.allowsV1(): // v1 was spoken until the operator forbade it
		if s.class == sawV2 {
			return n.enter(stateV2, s, now), goOn
		}
		return n.met(s), giveUp
	case n.State == stateV1:
		return n.nextV1(s, r, now)
	default:
		return n.nextUpgrading(s, r, now)
	}
}

// nextUnknown: v2 and v1 are the server's own words; an absence is one only when it lasts, and leads to v1 only where the operator gave its address.
func (n negotiation) nextUnknown(s sight, r rules, now time.Time) (negotiation, action) {
	switch {
	case s.class == sawV2:
		return n.enter(stateV2, s, now), goOn
	case s.class == sawV1 && r.allowsV1() && (s.place == atDirectory || n.absent()):
		return n.enter(stateV1, s, now), goOn
	case s.class == sawAbsent && s.place == atDirectory && r.allowsV1() && r.v1Address:
		if n.absent() {
			return n.met(s), lookAtV1
		}
		return n.met(s), lookAgain
	}
	return n.met(s), giveUp
}

// nextV2 never leads to v1.
func (n negotiation) nextV2(s sight, now time.Time) (negotiation, action) {
	switch {
	case s.place != n.V2At:
		return n, goOn // says nothing about v2
	case s.class == sawV2:
		return n.well(), goOn
	case s.class == sawV1, s.class == sawAbsent && n.absent():
		return n.enter(stateSuspected, s, now), alarm
	case s.class == sawAbsent:
		return n.met(s), lookAgain
	}
	return n.met(s), giveUp
}

// nextSuspected ends when v2 is back where it was. Nothing else ends it but Client.Reset.
func (n negotiation) nextSuspected(s sight, now time.Time) (negotiation, action) {
	if s.place == n.V2At && s.class == sawV2 {
		return n.enter(stateV2, s, now), goOn
	}
	return n.met(s), giveUp
}

// nextV1: v2 may be offered at either place. Where v1 itself does not answer, it is kept: it has been spoken there.
func (n negotiation) nextV1(s sight, r rules, now time.Time) (negotiation, action) {
	switch {
	case s.class == sawV2:
		return n.enter(stateUpgrading, s, now), confirm
	case s.class == sawV1 && (s.place == n.V1At || n.Trouble != ""):
		n.V1At = s.place
		return n.well(), goOn
	case s.place == n.V1At:
		return n.met(s), giveUp
	}
	return n, goOn // no v2 yet
}

// nextUpgrading: an offer that goes away was none.
func (n negotiation) nextUpgrading(s sight, r rules, now time.Time) (negotiation, action) {
	switch {
	case s.place != n.V2At:
		return n, goOn // says nothing about the offer, even if v1 is gone: that it is taken up then is all the more welcome
	case s.class == sawV2 && (r.asked || now.Sub(n.Since) >= upgradePause):
		return n.well(), moveUp
	case s.class == sawV2:
		return n.well(), confirm
	case s.class == sawV1, s.class == sawAbsent:
		return n.enter(stateV1, s, now), goOn
	}
	return n.met(s), giveUp
}

// movedUp is after moveUp, when the account is known over v2.
func (n negotiation) movedUp(s sight, now time.Time) negotiation { return n.enter(stateV2, s, now) }

// nextForced: the operator's word for v1 stands in for all evidence. v1's own directory is needed all the same, and what v2 offers is only told.
func (n negotiation) nextForced(s sight, r rules, now time.Time) (negotiation, action) {
	switch {
	case s.class == sawV1 && n.State == stateV1 && s.place == n.V1At:
		return n.well(), goOn
	case s.class == sawV1 && (n.State != stateV1 || s.place == atDirectoryV1):
		return n.enter(stateV1, s, now), goOn
	case s.place == atDirectory && r.v1Address:
		return n, lookAtV1
	case n.State == stateV1 && s.place != n.V1At:
		return n, goOn
	}
	return n.met(s), giveUp
}

// noted keeps what every sight says, whatever the state.
func (n negotiation) noted(s sight, now time.Time) negotiation {
	if s.class == sawV2 {
		n.V2Seen = now
	}
	switch expected := n.V2At; {
	case n.State != stateUnknown && n.State != stateV2, expected != "" && s.place != expected, expected == "" && s.place != atDirectory:
	case s.class != sawAbsent:
		n.AbsentFirst, n.AbsentLast = time.Time{}, time.Time{}
	case n.AbsentFirst.IsZero():
		n.AbsentFirst, n.AbsentLast = now, now
	default:
		n.AbsentLast = now
	}
	return n
}

// absent reports whether v2's place was seen absent twice in a row, absencePause apart.
func (n negotiation) absent() bool {
	return !n.AbsentFirst.IsZero() && n.AbsentLast.Sub(n.AbsentFirst) >= absencePause
}

// enter changes the state by what was seen.
func (n negotiation) enter(to negotiationState, s sight, now time.Time) negotiation {
	n.State, n.Since, n.Evidence = to, now, s.says
	n.AbsentFirst, n.AbsentLast, n.NextProbe = time.Time{}, time.Time{}, time.Time{}
	switch to {
	case stateV2, stateUpgrading:
		n.V2At = s.place
	case stateV1:
		n.V2At = ""
		if s.class == sawV1 {
			n.V1At = s.place
		}
	}
	return n.well()
}

// met notes that a look was no good, and well that it was.
func (n negotiation) met(s sight) negotiation {
	n.Trouble = s.says
	return n
}

func (n negotiation) well() negotiation {
	n.Trouble = ""
	return n
}

// speaks returns what may be spoken now; empty: the CA has to be looked at first, or a person has to decide.
func (n negotiation) speaks(r rules) Protocol {
	switch n.State {
	case stateV2:
		if r.protocol != ProtocolV1 {
			return ProtocolV2
		}
	case stateV1, stateUpgrading:
		if r.allowsV1() && n.V1 != nil {
			return ProtocolV1
		}
	}
	return ""
}

// places are where to look now, in this order; further ones are up to next.
func (n negotiation) places(r rules) []place {
	switch {
	case n.State == stateV2 && r.protocol != ProtocolV1, n.State == stateSuspected && r.protocol != ProtocolV1:
		return []place{n.V2At}
	case r.v1Address && (n.State == stateV1 || n.State == stateUpgrading):
		return []place{atDirectory, atDirectoryV1}
	}
	return []place{atDirectory}
}

// about fits what is known to the configured addresses. What was seen of v1 elsewhere is no evidence here; that v2 was seen stays true.
func (n negotiation) about(directory, directoryV1 string) negotiation {
	if n.V1 == nil && (n.State == stateV1 || n.State == stateUpgrading) { // not written by us
		n.State = stateUnknown
	}
	moved := n.Directory != directory || n.DirectoryV1 != directoryV1
	n.Directory, n.DirectoryV1 = directory, directoryV1
	if !moved {
		return n
	}
	n.AbsentFirst, n.AbsentLast = time.Time{}, time.Time{}
	switch n.State {
	case stateV1, stateUpgrading:
		n.State, n.Since, n.Evidence, n.V1At, n.V2At = stateUnknown, time.Time{}, "", "", ""
	case stateV2, stateSuspected:
		if directoryV1 == "" {
			n.V2At = atDirectory
		}
	}
	return n
}
