package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// look gets the directory at a place and says what it is, with a few quick tries where there was no answer. The directory is there for sawV2 only, the Problem for
// all but sawV2 and sawV1.
func (g *negotiator) look(ctx context.Context, at place) (sight, *directory, error) {
	var s sight
	var dir *directory
	err := g.wire.retryQuickly(ctx, func() (err error) {
		s, dir, err = g.lookOnce(ctx, at)
		return err
	})
	g.metrics.Probe(g.ca, string(s.class))
	return s, dir, err
}

func (g *negotiator) lookOnce(ctx context.Context, at place) (sight, *directory, error) {
	const op = "get the directory"
	url := g.address(at)
	var nonces noncePool // whose it is, is not known yet
	ex := &exchange{endpoint: endpointDirectory, direct: true, nonces: &nonces}
	var body []byte
	err := g.wire.do(ctx, ex, http.MethodGet, url, nil, &body)
	var dir *directory
	if err == nil && ex.status == http.StatusOK {
		dir, err = parseDirectory(body, g.wire.plain)
		if err != nil {
			err = &answerError{err}
		}
	}
	c, err := classify(ex.status, dir, err)
	s := sight{place: at, class: c}
	switch c {
	case sawV2:
		dir.url = url
		g.wire.nonces.add(&nonces)
		s.says = fmt.Sprintf("%s has %s", url, strings.Join(v2Keys, ", "))
		return s, dir, nil
	case sawV1:
		g.wire.noncesV1.add(&nonces)
		s.v1 = &v1Directory{URL: url, Endpoints: dir.v1Endpoints(), Terms: dir.terms, CAA: dir.caa}
		s.says = fmt.Sprintf("%s has %s, and no key of v2", url, strings.Join(v1Keys, ", "))
		return s, nil, nil
	}
	p := requestProblem(g.ca, op, ex, err, time.Now())
	switch {
	case c == sawDenied && p.Status != 0: // that it is a problem of the server's own ("serverInternal") does not make it one that passes
		p.Advice = "the CA refuses to show its directory; it may have closed this service, or a proxy in between wants something"
	case c == sawAbsent:
		p.Advice = fmt.Sprintf("there is no directory any more, or there never was; check `%s`", at)
	}
	s.says = fmt.Sprintf("%s: %s", url, p.reason())
	return s, nil, p
}

// classify says what an answer, or the lack of one, is. err is why there is no directory; what it returns says why a directory is none of ACME's.
func classify(status int, dir *directory, err error) (class, error) {
	var refused *urlError
	var odd *answerError
	switch {
	case errors.As(err, &refused):
		return sawDenied, err
	case errors.As(err, &odd):
		return sawNotACME, err
	case err != nil:
		return sawNothing, err
	}
	switch status {
	case http.StatusOK:
		protocol, err := dir.protocol()
		switch {
		case err != nil:
			return sawNotACME, &answerError{err}
		case protocol == ProtocolV1:
			return sawV1, nil
		}
		return sawV2, nil
	case http.StatusNotFound, http.StatusGone, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return sawAbsent, fmt.Errorf("status %d", status)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return sawDenied, fmt.Errorf("status %d", status)
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusTooEarly:
		return sawNothing, fmt.Errorf("status %d", status)
	}
	if status >= 500 {
		return sawNothing, fmt.Errorf("status %d", status)
	}
	return sawNotACME, &answerError{fmt.Errorf("status %d", status)}
}
