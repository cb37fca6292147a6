package permission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// allowedBy reads tenant and upstream from the body of a 200. One that does not begin as a JSON object allows just so: endpoints made for other proxies send what they like, and the status says it
// all. One that does is meant for us: where it is broken, or its upstream is none, we cannot tell where requests would go.
func allowedBy(body []byte) (Answer, error) {
	answer := Answer{Allowed: true}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return answer, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return Answer{}, fmt.Errorf("its answer is broken JSON: %w", err)
	}
	_ = json.Unmarshal(fields["tenant"], &answer.Tenant) // absent or of another type: empty
	if to, ok := fields["to"]; ok {
		if err := json.Unmarshal(to, &answer.To); err != nil { // null leaves it empty
			return Answer{}, fmt.Errorf(`its answer has "to" = %.100s: write "http://host:port"`, to)
		}
	}
	if err := checkTo(answer.To); err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// checkTo refuses what is no upstream for a name: it is http:// or https:// with a host, perhaps a port, and nothing else. Empty is none, and good.
func checkTo(to string) error {
	if to == "" {
		return nil
	}
	if strings.LastIndex(to, "@") > 0 { // not shown: it is a secret
		return errors.New(`its answer has a "to" with a user or password: write "http://host:port"`)
	}
	u, err := url.Parse(to)
	if err == nil && (strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://")) && u.Hostname() != "" && isPort(u) &&
		(u.Path == "" || u.Path == "/") && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(to, "#") {
		return nil
	}
	return fmt.Errorf(`its answer has "to" = %.100q: write "http://host:port" or "https://host:port"`, to)
}

// isPort reports whether the URL has no port or a possible one.
func isPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}
