package migrate

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PEM is the source for a folder of PEM files, with everything below it, or for one file. Certificates and keys find each other by the key itself, whatever the
// files are called; for one file without a key, keys are looked for in the files beside it. A leaf that lies there without its chain gets it from the
// other certificates there.
func PEM(path string) Source { return &pemSource{path} }

type pemSource struct{ path string }

// pemPile is everything found in the files.
type pemPile struct {
	keys   map[[sha256.Size]byte]crypto.Signer // by the sum of the public key
	leaves map[[sha256.Size]byte]pemLeaf       // by the sum of the certificate
	cas    map[string]*x509.Certificate        // by raw subject
	faults []found
}

type pemLeaf struct {
	where string
	chain []*x509.Certificate
}

func (p *pemSource) each(ctx context.Context, take func(found) error) error {
	pile := &pemPile{keys: map[[sha256.Size]byte]crypto.Signer{}, leaves: map[[sha256.Size]byte]pemLeaf{}, cas: map[string]*x509.Certificate{}}
	if err := p.collect(ctx, pile); err != nil {
		return err
	}
	for _, f := range pile.faults {
		if err := take(f); err != nil {
			return err
		}
	}
	leaves := slices.SortedFunc(maps.Values(pile.leaves), func(a, b pemLeaf) int { return strings.Compare(a.where, b.where) })
	for _, leaf := range leaves {
		if err := take(pile.found(leaf)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pemSource) collect(ctx context.Context, pile *pemPile) error {
	info, err := os.Stat(p.path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		data, err := readFile(p.path)
		if err != nil {
			return err
		}
		pile.add(p.path, data, true)
		return pile.addBeside(p.path)
	}
	return filepath.WalkDir(p.path, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		data, err := readFile(path)
		if err != nil {
			pile.faults = append(pile.faults, found{where: path, err: err})
			return nil
		}
		pile.add(path, data, true)
		return nil
	})
}

// addBeside adds the keys, and the certificates of CAs, of the files in the same folder.
func (pile *pemPile) addBeside(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		beside := filepath.Join(filepath.Dir(path), e.Name())
		if data, err := readFile(beside); err == nil && beside != path {
			pile.add(beside, data, false)
		}
	}
	return nil
}

// add takes the file apart. Files without PEM are none of ours.
func (pile *pemPile) add(where string, data []byte, leaves bool) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		return
	}
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		key, err := parseKey(data)
		if err == nil {
			pile.keys[publicSum(key.Public())] = key
		} else if leaves {
			pile.faults = append(pile.faults, found{where: where, err: err})
		}
	}
	if !bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
		return
	}
	chain, err := parseChain(data)
	if err != nil {
		if leaves {
			pile.faults = append(pile.faults, found{where: where, err: err})
		}
		return
	}
	for _, c := range chain {
		if c.IsCA {
			pile.cas[string(c.RawSubject)] = c
		}
	}
	if leaf := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return !c.IsCA }); leaf >= 0 && leaves {
		sum := sha256.Sum256(chain[leaf].Raw)
		if have, ok := pile.leaves[sum]; !ok || len(chain) > len(have.chain) {
			pile.leaves[sum] = pemLeaf{where, chain}
		}
	}
}

func publicSum(key crypto.PublicKey) [sha256.Size]byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{} // no certificate has such a key
	}
	return sha256.Sum256(der)
}

func (pile *pemPile) found(l pemLeaf) found {
	f := found{where: l.where}
	for _, c := range l.chain {
		key, ok := pile.keys[publicSum(c.PublicKey)]
		if !ok {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			f.err = errors.New("its private key is of a kind that is not supported")
			return f
		}
		f.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		for _, c := range pile.complete(l.chain) {
			f.chain = append(f.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		return f
	}
	f.err = errors.New("its private key is in none of the files")
	return f
}

// complete adds the issuers of a leaf that stands alone, without the root.
func (pile *pemPile) complete(chain []*x509.Certificate) []*x509.Certificate {
	if len(chain) > 1 {
		return chain
	}
	for len(chain) < maxCertificates {
		last := chain[len(chain)-1]
		issuer := pile.cas[string(last.RawIssuer)]
		if issuer == nil || bytes.Equal(issuer.RawSubject, issuer.RawIssuer) || last.CheckSignatureFrom(issuer) != nil {
			break
		}
		chain = append(chain, issuer)
	}
	return chain
}
