package main

import (
	"os"

	"gatelodge/cmd/internal/alert"
	"gatelodge/proxy/certs"
)

// newAlerts builds what posts events to alert.webhook, of the configuration that is in force at the time.
func (p *program) newAlerts() (*alert.Sender, error) {
	node, _ := os.Hostname() // a node without a name posts without one
	return alert.New(alert.Config{URL: func() (string, error) { return p.cfg.Load().Alert.Webhook.Resolve() }, Node: node, Logger: p.log.Named("alert")})
}

// tell passes an event of the certificates on to the metrics and the webhook.
func (p *program) tell(e certs.Event) {
	p.metrics.Certs().Event(string(e.Kind))
	p.alerts.Send(string(e.Kind)+" "+e.Subject, e)
}
