package main

import (
	"context"
	"errors"
	"fmt"

	"gatelodge/acmeclient"
)

// view says how a name looks from here that a CA has refused, to be kept beside what the CA said: nothing if issue.preflight is off, or if the refusal was our own
// and says it all.
func (p *program) view(ctx context.Context, ca, name string, cause error) string {
	issuer := p.issuers.get(ca)
	if issuer == nil || issuer.issue.Preflight == string(acmeclient.PreflightOff) {
		return ""
	}
	if said, ok := errors.AsType[*acmeclient.Problem](cause); ok && said.Own() {
		return ""
	}
	outlook, err := issuer.client.Look(ctx, name)
	if err != nil {
		return fmt.Sprintf("it was not looked at: %v", err)
	}
	return outlook.String()
}
