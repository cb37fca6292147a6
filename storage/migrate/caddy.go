package migrate

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// Caddy is the source for a folder in which Caddy, or another program over certmagic, keeps its data: $XDG_DATA_HOME/caddy, /var/lib/caddy/.local/share/caddy.
func Caddy(dir string) (Source, error) {
	if filepath.Base(dir) == "certificates" {
		dir = filepath.Dir(dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "certificates")); err != nil {
		return nil, fmt.Errorf("%s is not a data folder of Caddy: %w", dir, err)
	}
	return Certmagic(&certmagic.FileStorage{Path: dir}), nil
}

// Certmagic is the source for any other storage of certmagic's.
func Certmagic(s certmagic.Storage) Source { return &certmagicSource{s} }

type certmagicSource struct{ s certmagic.Storage }

// caddyLocal is the issuer key of Caddy's own CA.
const caddyLocal = "local"

func (c *certmagicSource) each(ctx context.Context, take func(found) error) error {
	issuers, err := c.list(ctx, "certificates")
	if err != nil {
		return err
	}
	for _, issuer := range issuers {
		if path.Base(issuer) == caddyLocal {
			if err := take(found{where: issuer, skip: "certificates of Caddy's own CA: the internal CA makes its own"}); err != nil {
				return err
			}
			continue
		}
		sites, err := c.list(ctx, issuer)
		if err != nil {
			return err
		}
		for _, site := range sites {
			if err := take(c.site(ctx, site)); err != nil {
				return err
			}
		}
	}
	return c.accounts(ctx, take)
}

// list returns the keys directly below one; none if it does not exist.
func (c *certmagicSource) list(ctx context.Context, key string) ([]string, error) {
	keys, err := c.s.List(ctx, key, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", key, err)
	}
	return keys, nil
}

// siteMeta is what certmagic keeps beside a certificate.
type siteMeta struct {
	IssuerData json.RawMessage `json:"issuer_data"`
}

// issuerData is that of an ACME CA, as far as it concerns us.
type issuerData struct {
	CA          string `json:"ca"`
	RenewalInfo struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
	} `json:"renewal_info"`
}

func (c *certmagicSource) site(ctx context.Context, site string) found {
	f := found{where: site}
	file := path.Join(site, path.Base(site))
	if f.chain, f.err = c.load(ctx, file+".crt"); f.err != nil {
		return f
	}
	if f.key, f.err = c.load(ctx, file+".key"); f.err != nil {
		return f
	}
	data, err := c.load(ctx, file+".json")
	if err != nil {
		return f // chain and key serve without it
	}
	var meta siteMeta
	var acme issuerData
	if json.Unmarshal(data, &meta) == nil && json.Unmarshal(meta.IssuerData, &acme) == nil {
		f.issuerData = meta.IssuerData
		f.ca, f.start, f.end = acme.CA, acme.RenewalInfo.SuggestedWindow.Start, acme.RenewalInfo.SuggestedWindow.End
	}
	return f
}

func (c *certmagicSource) load(ctx context.Context, key string) ([]byte, error) {
	data, err := c.s.Load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path.Base(key), err)
	}
	return data, nil
}

// accounts finds acme/<issuer>/users/<e-mail>/<user>.json and .key.
func (c *certmagicSource) accounts(ctx context.Context, take func(found) error) error {
	issuers, err := c.list(ctx, "acme")
	if err != nil {
		return err
	}
	for _, issuer := range issuers {
		users, err := c.list(ctx, issuer+"/users")
		if err != nil {
			return err
		}
		for _, user := range users {
			files, err := c.list(ctx, user)
			if err != nil {
				return err
			}
			for _, file := range files {
				if !strings.HasSuffix(file, ".json") {
					continue
				}
				if err := take(c.account(ctx, strings.TrimSuffix(file, ".json"), path.Base(issuer))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *certmagicSource) account(ctx context.Context, file, issuer string) found {
	f := found{where: file + ".json"}
	data, err := c.load(ctx, file+".json")
	if err != nil {
		f.err = err
		return f
	}
	var record struct {
		Contact  []string `json:"contact"`
		Location string   `json:"location"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		f.err = errors.New("it is no account")
		return f
	}
	if data, f.err = c.load(ctx, file+".key"); f.err != nil {
		return f
	}
	key, err := parseKey(data)
	if err != nil {
		f.err = err
		return f
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.err = errors.New("its key is of a kind that is not supported")
		return f
	}
	f.account = &Account{Where: f.where, Directory: directoryOf(issuer, record.Location), URL: record.Location, Contact: record.Contact, Key: der}
	return f
}

// directoryOf undoes what certmagic makes of a directory's URL to name a folder: the host, and the path with "-" for "/". It is empty where that is not clear.
func directoryOf(issuer, account string) string {
	host := hostOf(account)
	rest, ok := strings.CutPrefix(issuer, certmagic.StorageKeys.Safe(host))
	if host == "" || !ok {
		return ""
	}
	scheme, _, _ := strings.Cut(account, "://")
	return scheme + "://" + host + strings.ReplaceAll(rest, "-", "/")
}
