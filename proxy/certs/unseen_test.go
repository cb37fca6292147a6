package certs

import (
	"testing"
	"testing/synctest"
	"time"
)

// visitedOnly is a house whose on-demand names are renewed for visitors only.
func visitedOnly(t *testing.T) *house {
	h := newHouse(t)
	h.log = quiet()
	h.set.VisitedOnly = true
	return h
}

func TestVisitedOnly_ARenewalWaitsForAVisitorWhoIsServedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := visitedOnly(t)
		h.open()
		first := h.must("quiet.example.com")
		h.must("busy.example.com")
		for range 80 {
			time.Sleep(day)
			h.must("busy.example.com")
		}
		h.wantIssued("quiet.example.com", 1)
		h.wantIssued("busy.example.com", 2)
		if s, err := h.m.Status(t.Context(), "quiet.example.com"); err != nil || s.State != StateAbandoned || s.Abandoned.Reason != goneUnseen {
			t.Errorf("%+v, %v", s, err)
		}
		if !h.must("quiet.example.com").Equal(first) {
			t.Error("the visitor had to wait for another certificate")
		}
		time.Sleep(time.Minute)
		h.wantIssued("quiet.example.com", 2)
		if s, err := h.m.Status(t.Context(), "quiet.example.com"); err != nil || s.State != StateServing || s.Abandoned != nil {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestVisitedOnly_NobodyIsAskedOnceACertificateHasEndedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := visitedOnly(t)
		h.open()
		first := h.must("quiet.example.com")
		time.Sleep(95 * day)
		h.wantIssued("quiet.example.com", 1)
		if h.must("quiet.example.com").Equal(first) {
			t.Error("served with a certificate that has ended")
		}
		h.wantIssued("quiet.example.com", 2)
	})
}

// TestVisitedOnly_IsTheAffairOfTheProcessThatIsVisited: one of the two is not the one that has the name's share.
func TestVisitedOnly_IsTheAffairOfTheProcessThatIsVisited(t *testing.T) {
	for visited := range 2 {
		synctest.Test(t, func(t *testing.T) {
			h := visitedOnly(t)
			nodes := [2]*Manager{h.open(), h.open()}
			h.m = nodes[0]
			h.must("quiet.example.com")
			time.Sleep(75 * day)
			h.wantIssued("quiet.example.com", 1)
			h.m = nodes[visited]
			h.must("quiet.example.com")
			time.Sleep(time.Minute)
			h.wantIssued("quiet.example.com", 2)
			time.Sleep(5 * day)
			h.wantIssued("quiet.example.com", 2)
		})
	}
}

func TestVisitedOnly_ARestartChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := visitedOnly(t)
		h.open()
		h.must("quiet.example.com")
		time.Sleep(70 * day)
		h.m.Close()
		h.open()
		time.Sleep(5 * day)
		h.wantIssued("quiet.example.com", 1)
		h.must("quiet.example.com")
		time.Sleep(time.Minute)
		h.wantIssued("quiet.example.com", 2)
	})
}

func TestVisitedOnly_IsNotForListedNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := visitedOnly(t).listing("listed.example.com")
		h.open()
		time.Sleep(80 * day)
		h.wantIssued("listed.example.com", 2)
	})
}
