package migrate

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/caddyserver/certmagic"

	"gatelodge/storage"
	"gatelodge/storage/cmstore"
)

// ExportOptions are for ExportCertmagic.
type ExportOptions struct {
	// Directory returns the URL of a CA's directory by its name in our configuration: it names the folder in which certmagic looks for certificates of this CA. Where it
	// is empty, or the certificate does not say who issued it, the folder is that of Let's Encrypt, which Caddy uses if nothing else is configured.
	Directory func(ca string) string
}

const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// ExportCertmagic writes all certificates, and accounts, into a folder as certmagic and Caddy keep them, so that either can go on from there. What is there
// already and the same is left alone. The folder is made with mode 0700 if need be.
func ExportCertmagic(ctx context.Context, src storage.Store, dir string, o ExportOptions) (*Report, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	x := &exporting{src: src, to: &certmagic.FileStorage{Path: dir}, o: o, report: &Report{}}
	err := x.each(ctx, "certs/", x.certificate)
	if err == nil {
		err = x.each(ctx, "acme/", x.account)
	}
	x.report.sort()
	if err != nil {
		return x.report, fmt.Errorf("export: %w", err)
	}
	return x.report, nil
}

type exporting struct {
	src    storage.Store
	to     *certmagic.FileStorage
	o      ExportOptions
	report *Report
}

func (x *exporting) directory(ca string) string {
	if x.o.Directory != nil {
		if url := x.o.Directory(ca); url != "" {
			return url
		}
	}
	return letsEncrypt
}

// each reads every object with the prefix. What is damaged is reported.
func (x *exporting) each(ctx context.Context, prefix string, do func(ctx context.Context, name string, data []byte) error) error {
	for after := ""; ; {
		names, err := x.src.List(ctx, prefix, after, 0)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			data, _, err := x.src.Get(ctx, name)
			if err == nil {
				err = do(ctx, name, data)
			}
			_, damaged := errors.AsType[*storage.CorruptError](err)
			switch {
			case damaged:
				x.report.problem(name, err)
			case err != nil && !errors.Is(err, storage.ErrNotExist):
				return err
			}
		}
		after = names[len(names)-1]
	}
}

func (x *exporting) certificate(ctx context.Context, object string, data []byte) error {
	b, err := storage.DecodeBundle(object, data)
	if err != nil {
		return err
	}
	x.report.Certificates++
	name := strings.TrimPrefix(object, "certs/")
	if strings.HasPrefix(name, "_.") {
		name = "*" + name[1:]
	}
	directory := x.directory(b.CA)
	own := *b
	own.Names = []string{name} // certmagic finds a certificate by its only name
	key, chain, meta, err := cmstore.Render(&own, directory)
	if err != nil {
		x.report.problem(object, err)
		return nil
	}
	issuer := cmstore.IssuerKey(directory)
	keys := certmagic.StorageKeys
	was, err := x.to.Load(ctx, keys.SiteCert(issuer, name))
	switch {
	case err == nil && bytes.Equal(was, chain):
		x.report.There++
		return nil
	case err == nil:
		x.report.Replaced++
	case errors.Is(err, fs.ErrNotExist):
		x.report.Created++
	default:
		return err
	}
	// The certificate comes last: it says that all of it is there.
	return x.files(ctx, file{keys.SitePrivateKey(issuer, name), key}, file{keys.SiteMeta(issuer, name), meta}, file{keys.SiteCert(issuer, name), chain})
}

type file struct {
	key  string
	data []byte
}

func (x *exporting) files(ctx context.Context, files ...file) error {
	for _, f := range files {
		if err := x.to.Store(ctx, f.key, f.data); err != nil {
			return fmt.Errorf("write %s: %w", f.key, err)
		}
	}
	return nil
}

// account exports acme/<ca>/account, as acmeclient writes it.
func (x *exporting) account(ctx context.Context, object string, data []byte) error {
	parts := strings.Split(object, "/")
	if len(parts) != 3 || parts[2] != "account" {
		return nil
	}
	var record struct {
		Key     []byte   `json:"key"`
		URL     string   `json:"url"`
		Contact []string `json:"contact"`
	}
	if json.Unmarshal(data, &record) != nil {
		x.report.problem(object, errors.New("it is no account"))
		return nil
	}
	private, err := x509.ParsePKCS8PrivateKey(record.Key)
	if err != nil {
		x.report.problem(object, errors.New("its key cannot be read"))
		return nil
	}
	x.report.Accounts++
	key, err := certmagic.PEMEncodePrivateKey(private)
	if err != nil {
		x.report.problem(object, errors.New("its key is of a kind that certmagic does not know"))
		return nil
	}
	meta, err := json.MarshalIndent(map[string]any{"status": "valid", "contact": record.Contact, "termsOfServiceAgreed": true, "location": record.URL}, "", "\t")
	if err != nil {
		return err
	}
	email, user := "default", "default"
	for _, contact := range record.Contact {
		if mail, ok := strings.CutPrefix(contact, "mailto:"); ok {
			email = strings.ToLower(mail)
			user, _, _ = strings.Cut(email, "@")
			break
		}
	}
	safe := certmagic.StorageKeys.Safe
	base := "acme/" + cmstore.IssuerKey(x.directory(parts[1])) + "/users/" + safe(email) + "/" + safe(user)
	x.report.AccountsStored++
	return x.files(ctx, file{base + ".key", key}, file{base + ".json", meta})
}
