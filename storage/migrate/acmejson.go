package migrate

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxAcmeJSON bounds the file: 10 KB a certificate, 50,000 certificates.
const maxAcmeJSON = 512 << 20

// AcmeJSON is the source for the file in which Traefik (v2, v3) keeps the certificates of all its resolvers. That of v1 is read too.
func AcmeJSON(path string) Source { return &acmeJSONSource{path} }

type acmeJSONSource struct{ path string }

// resolver is a member of the file. Its certificates are read one by one, so that a damaged one spoils no other.
type resolver struct {
	Account      *resolverAccount  `json:"Account"`
	Certificates []json.RawMessage `json:"Certificates"`
}

type resolverAccount struct {
	Email        string `json:"Email"`
	PrivateKey   []byte `json:"PrivateKey"` // DER
	Registration struct {
		URI  string `json:"uri"`
		Body struct {
			Contact []string `json:"contact"`
		} `json:"body"`
	} `json:"Registration"`
}

// resolverCertificate has PEM in base64.
type resolverCertificate struct {
	Domain struct {
		Main string `json:"main"`
	} `json:"domain"`
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

func (a *acmeJSONSource) each(ctx context.Context, take func(found) error) error {
	data, err := readUpTo(a.path, maxAcmeJSON)
	if err != nil {
		return err
	}
	resolvers, err := parseAcmeJSON(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", a.path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(resolvers)) {
		for f := range readResolver(name, resolvers[name]) {
			if err := take(f); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseAcmeJSON returns the resolvers by name, not looked into. v1 had a single one, which is the whole file.
func parseAcmeJSON(data []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, errors.New("it is not JSON as Traefik writes it") // a cause might quote a key
	}
	for name, value := range members {
		if strings.EqualFold(name, "Certificates") && len(value) > 0 && value[0] == '[' {
			return map[string]json.RawMessage{"v1": data}, nil
		}
	}
	return members, nil
}

// readResolver yields what is in one resolver.
func readResolver(name string, data []byte) func(yield func(found) bool) {
	return func(yield func(found) bool) {
		var r resolver
		if json.Unmarshal(data, &r) != nil {
			// Perhaps only the account is of another form.
			var rest struct {
				Certificates []json.RawMessage `json:"Certificates"`
			}
			if json.Unmarshal(data, &rest) != nil {
				yield(found{where: name, err: errors.New("it is not a resolver as Traefik writes it")})
				return
			}
			r = resolver{Certificates: rest.Certificates}
			if !yield(found{where: name + ": account", err: errors.New("it cannot be read")}) {
				return
			}
		}
		ca := ""
		if r.Account != nil {
			ca = r.Account.Registration.URI
			if f, ok := r.Account.found(name); ok && !yield(f) {
				return
			}
		}
		for i, raw := range r.Certificates {
			if !yield(readResolverCertificate(fmt.Sprintf("%s: certificate %d", name, i+1), raw, ca)) {
				return
			}
		}
	}
}

func readResolverCertificate(where string, raw []byte, ca string) found {
	var c resolverCertificate
	if json.Unmarshal(raw, &c) != nil {
		return found{where: where, err: errors.New("it cannot be read")}
	}
	if c.Domain.Main != "" {
		where += " (" + c.Domain.Main + ")"
	}
	return found{where: where, chain: c.Certificate, key: c.Key, ca: ca}
}

// found reports whether there is an account.
func (a *resolverAccount) found(name string) (found, bool) {
	if len(a.PrivateKey) == 0 {
		return found{}, false
	}
	f := found{where: name + ": account"}
	key, err := parseKeyDER(a.PrivateKey)
	if err != nil {
		f.err = err
		return f, true
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.err = errors.New("its key is of a kind that is not supported")
		return f, true
	}
	contact := a.Registration.Body.Contact
	if len(contact) == 0 && a.Email != "" {
		contact = []string{"mailto:" + a.Email}
	}
	f.account = &Account{Where: f.where, URL: a.Registration.URI, Contact: contact, Key: der}
	return f, true
}
