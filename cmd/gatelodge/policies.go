package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"

	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/traces"
	"gatelodge/proxy"
	"gatelodge/proxy/policy"
)

// policies are what sites and routes ask of their requests, by where they are written. A reload that does not change one keeps what it remembers: who has
// asked how often, whose password was right.
type policies map[string]keptPolicies

type keptPolicies struct {
	cfg   config.Policies
	users []string
	limit *policy.Limit // nil without
	basic *policy.Basic // likewise
}

// wrap is proxy.Site.Wrap or proxy.Route.Wrap.
type wrap func(http.Handler) http.Handler

// newPolicies builds those that are written at a place, such as a site. What does not fit in the Transport of forward authentication comes from open.
func (p policies) newPolicies(place string, cfg config.Policies, before policies, open func(target string) (http.RoundTripper, error)) (wrap, error) {
	kept, err := p.keep(place, cfg, before)
	if err != nil {
		return nil, err
	}
	var chain []wrap // from the outermost, which refuses most cheaply
	if len(cfg.Allow)+len(cfg.Deny) > 0 {
		n, err := policy.NewNetworks(policy.NetworksConfig{Allow: cfg.Allow, Deny: cfg.Deny, Client: proxy.ClientOf, Refuse: proxy.Refuse})
		if err != nil {
			return nil, err
		}
		chain = append(chain, n.Wrap)
	}
	if kept.limit != nil {
		chain = append(chain, kept.limit.Wrap)
	}
	if kept.basic != nil {
		chain = append(chain, kept.basic.Wrap)
	}
	if cfg.Auth.Forward != "" {
		f, err := newForward(cfg.Auth, open)
		if err != nil {
			return nil, err
		}
		chain = append(chain, f.Wrap)
	}
	if len(cfg.Compress) > 0 {
		c, err := policy.NewCompress(policy.CompressConfig{Codings: cfg.Compress})
		if err != nil {
			return nil, err
		}
		chain = append(chain, c.Wrap)
	}
	return join(chain...), nil
}

// join puts the first around the second, and so on; those that are nil are left out. It returns nil if all are.
func join(chain ...wrap) wrap {
	chain = slices.DeleteFunc(chain, func(w wrap) bool { return w == nil })
	if len(chain) == 0 {
		return nil
	}
	return func(h http.Handler) http.Handler {
		for _, w := range slices.Backward(chain) {
			h = w(h)
		}
		return h
	}
}

// keep returns the policies with a memory: those of before, where nothing has changed about them.
func (p policies) keep(place string, cfg config.Policies, before policies) (keptPolicies, error) {
	k := keptPolicies{cfg: cfg}
	var err error
	if k.users, err = usersOf(cfg.Auth); err != nil {
		return k, err
	}
	old, had := before[place]
	switch {
	case cfg.Limit.Rate.Count == 0:
	case had && old.cfg.Limit == cfg.Limit:
		k.limit = old.limit
	default:
		k.limit, err = policy.NewLimit(policy.LimitConfig{
			Rate: cfg.Limit.Rate.PerSecond(), Burst: cfg.Limit.Burst, Header: cfg.Limit.HeaderName(), Client: proxy.ClientOf, Refuse: proxy.Refuse,
		})
	}
	switch {
	case !cfg.Auth.Basic() || err != nil:
	case had && reflect.DeepEqual(old.cfg.Auth, cfg.Auth) && slices.Equal(old.users, k.users):
		k.basic = old.basic
	default:
		k.basic, err = policy.NewBasic(policy.BasicConfig{Users: k.users, Realm: cfg.Auth.Realm, Keep: cfg.Auth.KeepCredentials, Refuse: proxy.Refuse})
	}
	p[place] = k
	return k, err
}

// usersOf are the users in the configuration and in the file that it names, which every reload reads again.
func usersOf(a config.Auth) ([]string, error) {
	var list []string
	for _, u := range a.Users {
		list = append(list, u.Entry())
	}
	if a.UsersFile == "" {
		return list, nil
	}
	data, err := os.ReadFile(a.UsersFile)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	more, err := policy.ParseUsers(a.UsersFile, data)
	if err != nil {
		return nil, fmt.Errorf("read users:\n%w", err)
	}
	return append(list, more...), nil
}

func newForward(a config.Auth, open func(target string) (http.RoundTripper, error)) (*policy.Forward, error) {
	u, err := url.Parse(a.Forward)
	if err != nil {
		return nil, errors.New("auth.forward is no URL")
	}
	transport, err := open(u.Scheme + "://" + u.Host)
	if err != nil {
		return nil, err
	}
	return policy.NewForward(policy.ForwardConfig{
		URL: a.Forward, Copy: a.Copy, Timeout: a.Timeout, Transport: transport, Header: proxy.HeaderFor, Own: proxy.OwnFields, Refuse: proxy.Refuse,
	})
}

// newTrace is what is put around all sites to record their requests; nil if nothing is recorded.
func newTrace(t *traces.Traces, sample float64) (wrap, error) {
	if t == nil {
		return nil, nil
	}
	p, err := policy.NewTrace(policy.TraceConfig{
		Tracer: t.Tracer(), Sample: sample, Trusted: proxy.FromTrustedProxy,
		Client: proxy.ClientOf, Host: proxy.HostOf, RequestID: proxy.RequestID, Status: proxy.StatusOf,
	})
	if err != nil {
		return nil, err
	}
	return p.Wrap, nil
}
