package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/certs/permission"
	"gatelodge/proxy/rule"
)

// newRoutes are the routes of a site as the proxy sees them.
func (s *settings) newRoutes(site config.ResolvedSite) ([]proxy.Route, error) {
	var routes []proxy.Route
	for i, r := range site.Routes {
		route, err := s.openRoute(site.Name, r)
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
		routes = append(routes, route)
	}
	return routes, nil
}

// openRoute is newRoute with what the route needs to be open.
func (s *settings) openRoute(site string, r config.ResolvedRoute) (proxy.Route, error) {
	route, err := newRoute(r)
	if err != nil {
		return route, err
	}
	if r.UpstreamName != "" {
		if route.Upstream, err = s.pools.open(config.ResolvedSite{UpstreamName: r.UpstreamName, Upstream: r.Upstream}, s.from.pools, s.from.log); err != nil {
			return route, err
		}
	}
	// What a route remembers is kept by what it matches: another route may come in front of it.
	place := site + " " + strings.Join(r.Match.Methods, ",") + " " + strings.Join(r.Match.Path, " ")
	route.Wrap, err = s.policies.newPolicies(place, r.Policies, s.from.policies, s.open)
	return route, err
}

// newRoute is what can be said of a route without its upstream and policies.
func newRoute(r config.ResolvedRoute) (proxy.Route, error) {
	route := proxy.Route{
		Match: rule.Match{Paths: r.Match.Path, Methods: r.Match.Methods}, BodyBytes: int64(r.BodyBytes), Strip: r.Strip, Rewrite: r.Rewrite,
		Files: r.Files, Fallback: r.Fallback, Headers: headersOf(r.Headers),
	}
	if (r.Redirect != config.Redirect{}) {
		route.Redirect = &proxy.Redirect{To: r.Redirect.To, Status: r.Redirect.Status}
	}
	if (r.Respond != config.Respond{}) {
		route.Respond = &proxy.Response{Status: r.Respond.Status, Body: r.Respond.Body}
	}
	if r.Files != "" {
		if info, err := os.Stat(r.Files); err != nil {
			return route, fmt.Errorf("files: %w", err)
		} else if !info.IsDir() {
			return route, fmt.Errorf("files: %s is no folder", r.Files)
		}
	}
	return route, proxy.CheckRoute(route)
}

func headersOf(h config.Headers) *proxy.Headers {
	return &proxy.Headers{Set: h.Set, Remove: h.Remove, SetResponse: h.Response.Set, RemoveResponse: h.Response.Remove}
}

// customersOf says whose names are whose, if there is somebody to ask. An answer that is no longer remembered is asked for again; while nobody can
// tell, requests go where the site says.
func customersOf(p certs.Permission) func(context.Context, string) (proxy.Customer, bool) {
	ask, ok := p.(*permission.Ask)
	if !ok {
		return nil
	}
	return func(ctx context.Context, name string) (proxy.Customer, bool) {
		answer, err := ask.Say(ctx, name)
		return proxy.Customer{Tenant: answer.Tenant, To: answer.To}, err == nil && answer.Allowed
	}
}

// openCustomer opens the upstreams that answers of ask name.
func openCustomer(log *zap.Logger) func(to string) (proxy.Upstream, error) {
	return func(to string) (proxy.Upstream, error) {
		target, err := config.ParseTarget(to)
		if err != nil {
			return nil, err
		}
		if target.Scheme != "http" && target.Scheme != "https" {
			return nil, errors.New("an answer of ask names an http:// or https:// address")
		}
		u := config.DefaultUpstream()
		u.To = []config.Target{target}
		return newPool(target.String(), u, log)
	}
}
