package acmeclient

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// classes are all that can be seen, in the order of the columns below.
var classes = []class{sawV2, sawV1, sawAbsent, sawNotACME, sawDenied, sawNothing}

// outcome is a cell of the table: the state afterwards, and what to do.
type outcome struct {
	state negotiationState
	act   action
}

// decisions is every state at every place under every rule that makes a difference, by every class.
var decisions = []struct {
	name  string
	known negotiation
	rules rules
	at    place
	want  [6]outcome // v2, v1, absent, not ACME, denied, transient
}{
	// Nothing is known.
	{"unknown, one address", negotiation{}, rules{protocol: ProtocolAuto}, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateV1, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, two addresses", negotiation{}, beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateV1, goOn}, {stateUnknown, lookAgain}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, absent once, just now", negotiation{AbsentFirst: before(time.Second), AbsentLast: before(time.Second)}, beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateV1, goOn}, {stateUnknown, lookAgain}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, absent half a minute ago", absentSince(30 * time.Second), beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateV1, goOn}, {stateUnknown, lookAtV1}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, not absent for certain, v1's address", absentSince(0), beside, atDirectoryV1, [6]outcome{
		{stateV2, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, absent for certain, v1's address", certainlyAbsent, beside, atDirectoryV1, [6]outcome{
		{stateV2, goOn}, {stateV1, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, v1 forbidden", negotiation{}, onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, v1 forbidden, absent for certain", certainlyAbsent, onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, v2 forbidden", negotiation{}, rules{protocol: ProtocolV1}, atDirectory, [6]outcome{
		{stateUnknown, giveUp}, {stateV1, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},
	{"unknown, v2 forbidden, two addresses", negotiation{}, onlyV1, atDirectory, [6]outcome{
		{stateUnknown, lookAtV1}, {stateV1, goOn}, {stateUnknown, lookAtV1}, {stateUnknown, lookAtV1}, {stateUnknown, lookAtV1}, {stateUnknown, lookAtV1}}},
	{"unknown, v2 forbidden, v1's address", negotiation{}, onlyV1, atDirectoryV1, [6]outcome{
		{stateUnknown, giveUp}, {stateV1, goOn}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}, {stateUnknown, giveUp}}},

	// v2 is spoken: no cell leads to v1, save by the operator's word.
	{"v2", knownV2, beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, alarm}, {stateV2, lookAgain}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}}},
	{"v2, absent half a minute ago", v2AbsentSince(30 * time.Second), beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, alarm}, {stateSuspected, alarm}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}}},
	{"v2, v1's address", knownV2, beside, atDirectoryV1, [6]outcome{
		{stateV2, goOn}, {stateV2, goOn}, {stateV2, goOn}, {stateV2, goOn}, {stateV2, goOn}, {stateV2, goOn}}},
	{"v2, v1 forbidden", knownV2, onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, alarm}, {stateV2, lookAgain}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}}},
	{"v2, an operator asks", knownV2, asked, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, alarm}, {stateV2, lookAgain}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}}},
	{"v2, but the operator wants v1", knownV2, onlyV1, atDirectory, [6]outcome{
		{stateV2, lookAtV1}, {stateV1, goOn}, {stateV2, lookAtV1}, {stateV2, lookAtV1}, {stateV2, lookAtV1}, {stateV2, lookAtV1}}},
	{"v2, but the operator wants v1, v1's address", knownV2, onlyV1, atDirectoryV1, [6]outcome{
		{stateV2, giveUp}, {stateV1, goOn}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}, {stateV2, giveUp}}},

	// A downgrade is suspected: only v2 itself, or an operator, ends that.
	{"suspected", suspected, beside, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}}},
	{"suspected, v1's address", suspected, beside, atDirectoryV1, [6]outcome{
		{stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}}},
	{"suspected, v1 forbidden", suspected, onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}}},
	{"suspected, an operator asks", suspected, asked, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}}},
	{"suspected, but the operator wants v1", suspected, onlyV1, atDirectoryV1, [6]outcome{
		{stateSuspected, giveUp}, {stateV1, goOn}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}, {stateSuspected, giveUp}}},

	// v1 is spoken, at v2's address: the same URL will turn.
	{"v1 at the directory", knownV1(atDirectory), rules{protocol: ProtocolAuto}, atDirectory, [6]outcome{
		{stateUpgrading, confirm}, {stateV1, goOn}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}}},
	{"v1 at the directory, v1's address", knownV1(atDirectory), beside, atDirectoryV1, [6]outcome{
		{stateUpgrading, confirm}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}}},
	// v1 is spoken beside: v2 will appear where nothing is yet.
	{"v1 beside, the directory", knownV1(atDirectoryV1), beside, atDirectory, [6]outcome{
		{stateUpgrading, confirm}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}, {stateV1, goOn}}},
	{"v1 beside, its own address", knownV1(atDirectoryV1), beside, atDirectoryV1, [6]outcome{
		{stateUpgrading, confirm}, {stateV1, goOn}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}}},
	{"v1, then v1 forbidden", knownV1(atDirectory), onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}}},
	{"v1, v2 forbidden", knownV1(atDirectory), rules{protocol: ProtocolV1}, atDirectory, [6]outcome{
		{stateV1, giveUp}, {stateV1, goOn}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}, {stateV1, giveUp}}},
	{"v1 beside, v2 forbidden", knownV1(atDirectoryV1), onlyV1, atDirectory, [6]outcome{
		{stateV1, lookAtV1}, {stateV1, lookAtV1}, {stateV1, lookAtV1}, {stateV1, lookAtV1}, {stateV1, lookAtV1}, {stateV1, lookAtV1}}},

	// v2 was offered.
	{"upgrading, a minute later", upgrading(atDirectory, time.Minute), beside, atDirectory, [6]outcome{
		{stateUpgrading, confirm}, {stateV1, goOn}, {stateV1, goOn}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}}},
	{"upgrading, ten minutes later", upgrading(atDirectory, 10*time.Minute), beside, atDirectory, [6]outcome{
		{stateUpgrading, moveUp}, {stateV1, goOn}, {stateV1, goOn}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}}},
	{"upgrading, an operator asks", upgrading(atDirectory, 0), asked, atDirectory, [6]outcome{
		{stateUpgrading, moveUp}, {stateV1, goOn}, {stateV1, goOn}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}}},
	{"upgrading, v1's own address", upgrading(atDirectory, time.Minute), beside, atDirectoryV1, [6]outcome{
		{stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}}},
	{"upgrading at v1's address, the directory", upgrading(atDirectoryV1, time.Minute), beside, atDirectory, [6]outcome{
		{stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}, {stateUpgrading, goOn}}},
	{"upgrading, then v1 forbidden", upgrading(atDirectory, 0), onlyV2, atDirectory, [6]outcome{
		{stateV2, goOn}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}}},
	{"upgrading, then v2 forbidden", upgrading(atDirectory, 0), onlyV1, atDirectoryV1, [6]outcome{
		{stateUpgrading, giveUp}, {stateV1, goOn}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}, {stateUpgrading, giveUp}}},
}

// The rules and what is known, as the table names them.
var (
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	beside = rules{protocol: ProtocolAuto, v1Address: true}
	asked  = rules{protocol: ProtocolAuto, v1Address: true, asked: true}
	onlyV2 = rules{protocol: ProtocolV2, v1Address: true}
	onlyV1 = rules{protocol: ProtocolV1, v1Address: true}

	certainlyAbsent = negotiation{AbsentFirst: before(time.Minute), AbsentLast: before(0)}
	knownV2         = negotiation{State: stateV2, V2At: atDirectory, V2Seen: before(time.Hour)}
	suspected       = negotiation{State: stateSuspected, V2At: atDirectory, V2Seen: before(time.Hour)}
	someV1          = &v1Directory{URL: "https://ca.test/directory"}
)

func before(d time.Duration) time.Time { return noon.Add(-d) }

func absentSince(d time.Duration) negotiation {
	return negotiation{AbsentFirst: before(d), AbsentLast: before(d)}
}

func v2AbsentSince(d time.Duration) negotiation {
	n := knownV2
	n.AbsentFirst, n.AbsentLast = before(d), before(d)
	return n
}

func knownV1(at place) negotiation {
	return negotiation{State: stateV1, Since: before(24 * time.Hour), V1At: at, V1: someV1}
}

// upgrading is a CA whose v1 is beside, and whose v2 was first seen a while ago.
func upgrading(v2At place, ago time.Duration) negotiation {
	return negotiation{State: stateUpgrading, Since: before(ago), V2At: v2At, V1At: atDirectoryV1, V1: someV1}
}

func TestNegotiation_DecidesEveryStateByEverySight(t *testing.T) {
	var states []negotiationState
	for _, tt := range decisions {
		states = append(states, tt.known.State)
		for i, c := range classes {
			s := sight{place: tt.at, class: c, says: "seen"}
			if c == sawV1 {
				s.v1 = someV1
			}
			n, act := tt.known.next(s, tt.rules, noon)
			if got := (outcome{n.State, act}); got != tt.want[i] {
				t.Errorf("%s: %s at %s: %q, %s; wanted %q, %s", tt.name, c, tt.at, n.State, act, tt.want[i].state, tt.want[i].act)
			}
			checkSane(t, fmt.Sprintf("%s: %s", tt.name, c), tt.known, n, s, tt.rules)
		}
	}
	for _, s := range []negotiationState{stateUnknown, stateV2, stateV1, stateUpgrading, stateSuspected} {
		if !slices.Contains(states, s) {
			t.Errorf("state %q is not in the table", s)
		}
	}
}

// checkSane is what holds for every step, in the table or not.
func checkSane(t *testing.T, what string, before, after negotiation, s sight, r rules) {
	t.Helper()
	if before.State == stateV2 || before.State == stateSuspected {
		if after.speaks(r) == ProtocolV1 && r.protocol != ProtocolV1 {
			t.Errorf("%s: v1 is spoken after v2", what)
		}
	}
	if after.speaks(r) == ProtocolV1 && before.speaks(r) != ProtocolV1 && s.class != sawV1 {
		t.Errorf("%s: v1 is spoken without a v1 directory", what)
	}
	if after.speaks(r) == ProtocolV2 && before.State != stateV2 && s.class != sawV2 {
		t.Errorf("%s: v2 is spoken without a v2 directory", what)
	}
	if r.protocol == ProtocolV2 && after.speaks(r) == ProtocolV1 || r.protocol == ProtocolV1 && after.speaks(r) == ProtocolV2 {
		t.Errorf("%s: the forbidden protocol is spoken", what)
	}
	if after.State != before.State && (after.Since != noon || after.Evidence != "seen") {
		t.Errorf("%s: the change does not say when and why: %+v", what, after)
	}
	if after.State == stateV2 && after.V2At == "" || after.State == stateV1 && (after.V1At == "" || after.V1 == nil) {
		t.Errorf("%s: the state does not say where: %+v", what, after)
	}
}

// TestNegotiation_AnAbsenceIsCertainOnlyInARow: whatever is seen between two absences begins them anew.
func TestNegotiation_AnAbsenceIsCertainOnlyInARow(t *testing.T) {
	for _, between := range []class{sawNotACME, sawDenied, sawNothing} {
		n, now := negotiation{}, noon
		for i, c := range []class{sawAbsent, between, sawAbsent} {
			var act action
			n, act = n.next(sight{place: atDirectory, class: c}, beside, now)
			if act == lookAtV1 {
				t.Errorf("%s between: step %d leads to v1", between, i)
			}
			now = now.Add(time.Minute)
		}
		if _, act := n.next(sight{place: atDirectory, class: sawAbsent}, beside, now); act != lookAtV1 {
			t.Errorf("%s between: two absences a minute apart lead to %q", between, act)
		}
	}
}

func TestNegotiation_OtherAddressesAreNoEvidenceForTheseOnes(t *testing.T) {
	for _, tt := range []struct {
		known negotiation
		want  negotiationState
	}{{knownV1(atDirectory), stateUnknown}, {upgrading(atDirectory, 0), stateUnknown}, {knownV2, stateV2}, {suspected, stateSuspected}, {certainlyAbsent, stateUnknown}} {
		tt.known.Directory = "https://old.test/dir"
		n := tt.known.about("https://new.test/dir", "")
		if n.State != tt.want || n.absent() || n.Directory != "https://new.test/dir" {
			t.Errorf("%q became %+v", tt.known.State, n)
		}
		if again := n.about("https://new.test/dir", ""); !sameNegotiation(n, again) {
			t.Errorf("unchanged addresses change %+v to %+v", n, again)
		}
	}
	if n := (negotiation{State: stateV1}).about("", ""); n.State != stateUnknown {
		t.Errorf("v1 without a directory of it is %+v", n)
	}
}

// FuzzNegotiation walks at random: no way leads to v1 once v2 was spoken, and none without a sight of it.
func FuzzNegotiation(f *testing.F) {
	f.Add([]byte{2, 2, 1, 0, 0, 1}, byte(1))
	f.Add([]byte{0, 1, 2, 5, 1}, byte(0))
	f.Add([]byte{1, 0, 0, 2, 2, 7, 1}, byte(2))
	all := []rules{{protocol: ProtocolAuto}, beside, asked, onlyV2, onlyV1}
	f.Fuzz(func(t *testing.T, walk []byte, rule byte) {
		r := all[int(rule)%len(all)]
		var n negotiation
		for i, b := range walk[:min(len(walk), 200)] {
			s := sight{place: []place{atDirectory, atDirectoryV1}[b/6%2], class: classes[b%6], says: "seen"}
			if s.class == sawV1 {
				s.v1 = someV1
			}
			// Time stands still within a step and moves by up to a quarter of an hour between two.
			now := noon.Add(time.Duration(i) * time.Duration(b) * 4 * time.Second)
			after, act := n.next(s, r, now)
			if after.State != n.State {
				after.Since = noon
			}
			checkSane(t, fmt.Sprintf("step %d", i), n, after, s, r)
			if act == moveUp {
				if n.State != stateUpgrading {
					t.Errorf("step %d moves up from %q", i, n.State)
				}
				after = after.movedUp(s, now)
			}
			n = after
		}
	})
}

func TestNegotiation_CellsAreOfUse(t *testing.T) {
	seen := map[action]int{}
	for _, tt := range decisions {
		for _, o := range tt.want {
			seen[o.act]++
		}
	}
	for _, a := range []action{goOn, giveUp, lookAgain, lookAtV1, confirm, moveUp, alarm} {
		if seen[a] == 0 {
			t.Errorf("no cell says %q; they say %v", a, slices.Sorted(maps.Keys(seen)))
		}
	}
}
