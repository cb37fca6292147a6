package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"

	"go.uber.org/zap"
)

// missingHeader says why a list is not complete.
const missingHeader = "Gatelodge-Missing"

// listCerts writes one certificate after the other: a million of them are never in memory together.
func (s *Server) listCerts(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), listTime)
	defer cancel()
	all, missing := s.cfg.Certs(ctx, r.URL.Query().Get("failing") == "true")
	if missing != nil {
		w.Header().Set(missingHeader, printable(missing.Error()))
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	between := "["
	for c := range all {
		data, err := json.Marshal(c)
		if err == nil {
			_, err = out.WriteString(between)
		}
		if err == nil {
			_, err = out.Write(data)
		}
		if err != nil { // the client sees that the list has no end
			s.cfg.Logger.Debug("list of certificates broken off", zap.Error(err))
			return
		}
		between = ",\n"
	}
	if between == "[" {
		_, _ = out.WriteString(between) // an empty list; errors stay with the writer until Flush
	}
	_, _ = out.WriteString("]\n")
	if err := out.Flush(); err != nil {
		s.cfg.Logger.Debug("admin client went away", zap.Error(err))
	}
}

// retry goes on when the client goes away, as a reload does.
func (s *Server) retry(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTime)
	defer cancel()
	switch done, err := s.cfg.Retry(ctx, r.PathValue("name")); {
	case errors.Is(err, ErrUnknownName):
		s.refuse(w, http.StatusNotFound, err)
	case err != nil:
		s.refuse(w, http.StatusBadGateway, err)
	default:
		s.answer(w, http.StatusOK, done)
	}
}

// Retry lets a name be tried now that is held back after a failure; the empty name means all. The error wraps ErrUnknownName if there is none.
func (c *Client) Retry(ctx context.Context, name string) (Retried, error) {
	path := "/retry"
	if name != "" {
		path = "/certs/" + url.PathEscape(name) + "/retry"
	}
	var done Retried
	err := c.do(ctx, http.MethodPost, path, &done)
	return done, err
}

// Certs yields all certificates by name, or those that want attention, as they arrive. An error is the last that it yields: also if the process says that some are missing.
func (c *Client) Certs(ctx context.Context, failing bool) iter.Seq2[CertStatus, error] {
	return func(yield func(CertStatus, error) bool) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://admin/certs?failing=%t", failing), nil)
		if err != nil {
			yield(CertStatus{}, err)
			return
		}
		res, err := c.http.Do(req)
		if err != nil {
			yield(CertStatus{}, c.explain(err))
			return
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what could not be read is not needed to say that it was refused
			yield(CertStatus{}, refused(res, body))
			return
		}
		left := false
		err = decodeList(io.LimitReader(res.Body, maxAnswer), func(c CertStatus) bool { left = !yield(c, nil); return !left })
		if err != nil {
			yield(CertStatus{}, fmt.Errorf("read the answer of %s: %w", c.path, err))
			return
		}
		if missing := res.Header.Get(missingHeader); missing != "" && !left {
			yield(CertStatus{}, errors.New(missing))
		}
	}
}

// decodeList reads a JSON array, one element after the other, until yield reports false.
func decodeList(r io.Reader, yield func(CertStatus) bool) error {
	decoder := json.NewDecoder(bufio.NewReader(r))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		var cert CertStatus
		if err := decoder.Decode(&cert); err != nil {
			return err
		}
		if !yield(cert) {
			return nil
		}
	}
	_, err := decoder.Token()
	return err
}
