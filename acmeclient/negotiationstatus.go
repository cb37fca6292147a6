package acmeclient

import (
	"time"

	"go.uber.org/zap"
)

// NegotiationMetrics is what Config.Metrics may implement besides, to count what the negotiation of protocols does.
type NegotiationMetrics interface {
	// Probe counts one look at a directory; class is "v2", "v1", "absent", "not-acme", "denied" or "transient".
	Probe(ca, class string)

	// Transition counts a change of state: "unknown", "v2", "v1", "v1-upgrading", "downgrade-suspected". It is counted by the node that saw why.
	Transition(ca, from, to string)

	// DowngradeSuspected counts the alarms.
	DowngradeSuspected(ca string)

	// Speaks tells which version of ACME this node speaks with the CA from now on: 2, 1, or 0 for none.
	Speaks(ca string, version int)

	// V1Used counts the certificates that were ordered over v1.
	V1Used(ca string)

	// V2Refused counts the looks at which v2 was offered, but Config.Protocol is ProtocolV1.
	V2Refused(ca string)
}

type noNegotiationMetrics struct{}

func (noNegotiationMetrics) Probe(string, string)              {}
func (noNegotiationMetrics) Transition(string, string, string) {}
func (noNegotiationMetrics) DowngradeSuspected(string)         {}
func (noNegotiationMetrics) Speaks(string, int)                {}
func (noNegotiationMetrics) V1Used(string)                     {}
func (noNegotiationMetrics) V2Refused(string)                  {}

// Negotiation is what a person wants to know of how a CA's protocol was found.
type Negotiation struct {
	// State is "unknown", "v2", "v1", "v1-upgrading" (v2 is offered and about to be used) or "downgrade-suspected" (v2 was spoken and is gone: nothing is sent
	// to the CA until it is back, or Client.Reset).
	State string

	Deprecated bool      // v1 is spoken
	Evidence   string    // what led to State, in one line; empty while unknown
	Since      time.Time // when
	Trouble    string    // what the last look at the CA was met with; empty if it was good
	NextProbe  time.Time // when the CA is looked at next; zero: not before Obtain, Probe or Start
	OrdersV1   int       // orders over v1 since the start of this process
}

// status returns what is spoken, as far as this node knows, and why.
func (g *negotiator) status() (Protocol, Negotiation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.known
	return n.speaks(g.rules), Negotiation{
		State: n.State.String(), Deprecated: n.State == stateV1 || n.State == stateUpgrading, Evidence: n.Evidence, Since: n.Since, Trouble: n.Trouble,
		NextProbe: g.nextLook, OrdersV1: g.uses,
	}
}

// version is what is spoken, as a number.
func (p Protocol) version() int {
	switch p {
	case ProtocolV2:
		return 2
	case ProtocolV1:
		return 1
	}
	return 0
}

func (g *negotiator) setNextLook(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextLook = t
}

// v1WarnInterval bounds how often the use of v1 is logged.
const v1WarnInterval = time.Hour

// usedV1 counts an order over v1 and says so now and then.
func (g *negotiator) usedV1() {
	g.metrics.V1Used(g.ca)
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.uses++
	if now.Sub(g.warned) < v1WarnInterval {
		return
	}
	g.warned = now
	g.log.Warn("ACME v1 is used, which is deprecated: see to it that the CA offers v2",
		zap.Int("orders", g.uses), zap.String("evidence", g.known.Evidence), zap.Time("next_probe", g.known.NextProbe))
}
