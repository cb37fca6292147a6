package main

import (
	"fmt"
	"net/url"
	"os"

	"gatelodge/cmd/internal/alert"
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs"
)

// newAlerts builds what posts events to alert.webhook, of the configuration that is in force at the time.
func (p *program) newAlerts() (*alert.Sender, error) {
	node, _ := os.Hostname() // a node without a name posts without one
	return alert.New(alert.Config{URL: func() (string, error) { return p.cfg.Load().Alert.Webhook.Resolve() }, Node: node, Logger: p.log.Named("alert")})
}

// verifyWebhook resolves alert.webhook, so that what is wrong with it is said now, and not by the first alert. Errors name the reference only.
func verifyWebhook(cfg config.Alert) error {
	if cfg.Webhook == (config.Hook{}) {
		return nil
	}
	to, err := cfg.Webhook.Resolve()
	if err != nil {
		return fmt.Errorf("alert.webhook: %w", err)
	}
	if u, err := url.Parse(to); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("alert.webhook: %s holds no http:// or https:// URL", cfg.Webhook)
	}
	return nil
}

// tell passes an event of the certificates on to the metrics and the webhook.
func (p *program) tell(e certs.Event) {
	p.metrics.Certs().Event(string(e.Kind))
	p.alerts.Send(string(e.Kind)+" "+e.Subject, e)
}
