package migrate

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Certbot is the source for a configuration folder of certbot, /etc/letsencrypt, or a copy of one: the paths in it may be those of another place, and links may be
// missing.
func Certbot(dir string) (Source, error) {
	for _, below := range []string{"live", "archive"} {
		if _, err := os.Stat(filepath.Join(dir, below)); err == nil {
			return &certbotSource{dir}, nil
		}
	}
	return nil, fmt.Errorf("%s is not a folder of certbot: neither live nor archive is in it", dir)
}

type certbotSource struct{ dir string }

func (c *certbotSource) each(ctx context.Context, take func(found) error) error {
	lineages, err := c.lineages()
	if err != nil {
		return err
	}
	for _, name := range lineages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := take(c.lineage(name)); err != nil {
			return err
		}
	}
	return c.accounts(take)
}

// lineages are certbot's names of certificates: those with settings for renewal, and those without that have a folder.
func (c *certbotSource) lineages() ([]string, error) {
	var names []string
	for _, below := range []string{"renewal", "live", "archive"} {
		entries, err := os.ReadDir(filepath.Join(c.dir, below))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			name, isConf := strings.CutSuffix(e.Name(), ".conf")
			if isConf == (below == "renewal") && e.Name() != "README" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (c *certbotSource) lineage(name string) found {
	f := found{where: filepath.Join(c.dir, "live", name)}
	settings := map[string]string{}
	if data, err := readFile(filepath.Join(c.dir, "renewal", name+".conf")); err == nil {
		settings = parseRenewal(data)
	}
	f.ca = settings["server"]
	if f.chain, f.key, f.err = c.live(name); f.err == nil {
		return f
	}
	// Links may point to where the folder was before.
	archive := filepath.Join(c.dir, "archive", name)
	if chain, key, err := newest(archive); err == nil {
		f.where, f.chain, f.key, f.err = archive, chain, key, nil
	}
	return f
}

func (c *certbotSource) live(name string) (chain, key []byte, err error) {
	dir := filepath.Join(c.dir, "live", name)
	if chain, err = readFile(filepath.Join(dir, "fullchain.pem")); err != nil {
		return nil, nil, err
	}
	if key, err = readFile(filepath.Join(dir, "privkey.pem")); err != nil {
		return nil, nil, err
	}
	return chain, key, nil
}

// newest reads the pair with the highest number in a folder of the archive: fullchain7.pem and privkey7.pem.
func newest(dir string) (chain, key []byte, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	best := 0
	for _, e := range entries {
		number, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), ".pem"), "fullchain")
		if n, err := strconv.Atoi(number); ok && err == nil && n > best {
			if _, err := os.Stat(filepath.Join(dir, "privkey"+number+".pem")); err == nil {
				best = n
			}
		}
	}
	if best == 0 {
		return nil, nil, fmt.Errorf("%s has no pair of fullchain and privkey", dir)
	}
	if chain, err = readFile(filepath.Join(dir, fmt.Sprintf("fullchain%d.pem", best))); err != nil {
		return nil, nil, err
	}
	if key, err = readFile(filepath.Join(dir, fmt.Sprintf("privkey%d.pem", best))); err != nil {
		return nil, nil, err
	}
	return chain, key, nil
}

// parseRenewal reads the settings of a lineage, in ConfigObj's form: "key = value" before and within [renewalparams]. Deeper sections are not ours.
func parseRenewal(data []byte) map[string]string {
	settings := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") && line != "[renewalparams]" {
			break
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
			value = value[1 : n-1]
		}
		settings[strings.TrimSpace(key)] = value
	}
	return settings
}

// accounts finds accounts/<host>/<path of the directory>/<id>/{regr,private_key}.json.
func (c *certbotSource) accounts(take func(found) error) error {
	root := filepath.Join(c.dir, "accounts")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() != "private_key.json" {
			return nil
		}
		directory, err := filepath.Rel(root, filepath.Dir(filepath.Dir(path)))
		if err != nil {
			return err
		}
		return take(certbotAccount(filepath.Dir(path), "https://"+filepath.ToSlash(directory)))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func certbotAccount(dir, directory string) found {
	f := found{where: dir}
	data, err := readFile(filepath.Join(dir, "private_key.json"))
	if err != nil {
		f.err = err
		return f
	}
	der, err := jwkToPKCS8(data)
	if err != nil {
		f.err = err
		return f
	}
	f.account = &Account{Where: dir, Directory: directory, Key: der}
	var registration struct {
		URI  string `json:"uri"`
		Body struct {
			Contact []string `json:"contact"`
		} `json:"body"`
	}
	if data, err := readFile(filepath.Join(dir, "regr.json")); err == nil && json.Unmarshal(data, &registration) == nil {
		f.account.URL, f.account.Contact = registration.URI, registration.Body.Contact
	}
	return f
}

// jwkToPKCS8 turns a private key as JSON (RFC 7517) into DER. Errors do not show it.
func jwkToPKCS8(data []byte) ([]byte, error) {
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(data) != nil {
		return nil, errors.New("its key cannot be read")
	}
	signer, ok := jwk.Key.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key is not a private one")
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, errors.New("its key is of a kind that is not supported")
	}
	return der, nil
}
