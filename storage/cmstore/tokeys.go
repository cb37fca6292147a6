package cmstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"gatelodge/storage"
)

// part is a key of the form certificates/ISSUER/SITE/SITE.EXT.
type part struct{ issuer, site, ext string }

func splitKey(key string) []string { return strings.Split(key, "/") }

// parsePart reports whether the key is that of a certificate's part.
func parsePart(key string) (part, bool) {
	parts := splitKey(key)
	if len(parts) != 4 || parts[0] != "certificates" || parts[1] == "" || parts[2] == "" {
		return part{}, false
	}
	p := part{issuer: parts[1], site: parts[2], ext: strings.TrimPrefix(parts[3], parts[2])}
	return p, parts[3] == p.site+p.ext && (p.ext == ".key" || p.ext == ".crt" || p.ext == ".json")
}

func (p part) with(ext string) part { p.ext = ext; return p }

func (p part) key() string { return "certificates/" + p.issuer + "/" + p.site + "/" + p.site + p.ext }

// name undoes what certmagic makes of a name to name a folder.
func (p part) name() string { return nameOfSite(p.site) }

func nameOfSite(site string) string {
	if ip, err := netip.ParseAddr(strings.ReplaceAll(site, "-", ":")); err == nil && ip.Is6() {
		return ip.String()
	}
	if rest, ok := strings.CutPrefix(site, "wildcard_."); ok {
		return "*." + rest
	}
	return site
}

func (p part) isFor(b *storage.Bundle) bool {
	return slices.ContainsFunc(b.Names, func(name string) bool { return certmagic.StorageKeys.Safe(name) == p.site })
}

// objectOf returns the object of a site's certificate; false if it is not the folder of a name.
func objectOf(site string) (string, bool) {
	name := nameOfSite(site)
	if certmagic.StorageKeys.Safe(name) != site {
		return "", false
	}
	if strings.HasPrefix(name, "*.") {
		name = "_" + name[1:]
	}
	object := "certs/" + name
	return object, storage.CheckName(object) == nil
}

// siteOf is the reverse.
func siteOf(object string) string {
	name := strings.TrimPrefix(object, "certs/")
	if strings.HasPrefix(name, "_.") {
		name = "*" + name[1:]
	}
	return certmagic.StorageKeys.Safe(name)
}

// cutIssue returns the name as it is in a lease of ours, if the lock is the one under which certmagic orders a certificate.
func cutIssue(lock string) (string, bool) {
	name, ok := strings.CutPrefix(lock, "issue_cert_")
	if strings.HasPrefix(name, "*.") {
		name = "_" + name[1:]
	}
	return name, ok && storage.CheckName("issue/"+name) == nil
}

// addDraft keeps a part until the rest is there.
func (t *To) addDraft(p part, value []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := p.with("").key()
	d := t.drafts[id]
	if d == nil {
		if len(t.drafts) >= maxDrafts {
			for old, d := range t.drafts { // of callers that never finished
				if time.Since(d.since) > time.Minute {
					delete(t.drafts, old)
				}
			}
		}
		if len(t.drafts) >= maxDrafts {
			return fmt.Errorf("store %s: too many certificates are being stored", p.key())
		}
		d = &draft{parts: map[string][]byte{}}
		t.drafts[id] = d
	}
	d.since = time.Now()
	d.parts[p.ext] = slices.Clone(value)
	return nil
}

// drafted returns a part that was stored; nil if it was not.
func (t *To) drafted(p part) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.drafts[p.with("").key()]; d != nil && d.parts[p.ext] != nil {
		return slices.Clone(d.parts[p.ext])
	}
	return nil
}

func (t *To) dropDraft(p part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.drafts, p.with("").key())
}

// dropPart reports whether there was a draft with the part.
func (t *To) dropPart(p part) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.drafts[p.with("").key()]
	if d == nil || d.parts[p.ext] == nil {
		return false
	}
	if delete(d.parts, p.ext); len(d.parts) == 0 {
		delete(t.drafts, p.with("").key())
	}
	return true
}

// otherPrefix begins the objects of everything that is not a certificate.
const otherPrefix = "cm/"

// otherObject returns the object of such a key. Letters that our names do not have are written as "=" and two hex digits; folders end with "=", so that a file
// and a folder may have the same name.
func otherObject(key string) string {
	var b strings.Builder
	b.WriteString(otherPrefix)
	parts := splitKey(key)
	for i, part := range parts {
		for j := range len(part) {
			if c := part[j]; c == '=' || c == '.' && j == 0 || storage.CheckName("a"+string(rune(c))) != nil {
				fmt.Fprintf(&b, "=%02x", c)
			} else {
				b.WriteByte(c)
			}
		}
		if i < len(parts)-1 {
			b.WriteString("=/")
		}
	}
	return b.String()
}

// otherKey is the reverse.
func otherKey(object string) (string, bool) {
	rest, ok := strings.CutPrefix(object, otherPrefix)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] != '=':
			b.WriteByte(rest[i])
		case i+1 < len(rest) && rest[i+1] == '/':
		case i+2 < len(rest):
			var c byte
			if _, err := fmt.Sscanf(rest[i+1:i+3], "%02x", &c); err != nil {
				return "", false
			}
			b.WriteByte(c)
			i += 2
		}
	}
	return b.String(), otherObject(b.String()) == object
}

func (t *To) loadOther(ctx context.Context, key string) ([]byte, error) {
	object := otherObject(key)
	if storage.CheckName(object) != nil {
		return nil, fmt.Errorf("load %s: %w", key, fs.ErrNotExist) // such a key cannot have been stored
	}
	data, _, err := t.store.Get(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	return data, nil
}

func (t *To) storeOther(ctx context.Context, key string, value []byte) error {
	if _, err := t.store.Put(ctx, otherObject(key), value); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// deleteOther deletes the file itself, if there is one.
func (t *To) deleteOther(ctx context.Context, key string) error {
	object := otherObject(key)
	if storage.CheckName(object) != nil {
		return nil
	}
	return t.store.Delete(ctx, object)
}

// List implements certmagic.Storage. Recursively it returns folders too, as certmagic's own storage does.
func (t *To) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	keys, err := t.keysBelow(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("list %s: %w", dir, fs.ErrNotExist)
	}
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	var out []string
	for _, key := range keys {
		parts := splitKey(strings.TrimPrefix(key, prefix))
		for n := 1; n <= len(parts); n++ {
			out = append(out, prefix+strings.Join(parts[:n], "/"))
			if !recursive {
				break
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// keysBelow returns the keys of all files below a folder.
func (t *To) keysBelow(ctx context.Context, dir string) ([]string, error) {
	prefix := otherPrefix
	if dir != "" {
		prefix = otherObject(dir) + "=/"
	}
	names, err := t.objects(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		if key, ok := otherKey(name); ok {
			keys = append(keys, key)
		}
	}
	certs, err := t.certificateKeys(ctx, dir)
	return append(keys, certs...), err
}

// certificateKeys returns the keys of the parts of all certificates below a folder.
func (t *To) certificateKeys(ctx context.Context, dir string) ([]string, error) {
	parts := splitKey(dir)
	if dir != "" && parts[0] != "certificates" || len(parts) > 3 {
		return nil, nil
	}
	var objects []string
	if len(parts) == 3 {
		if object, ok := objectOf(parts[2]); ok {
			objects = []string{object}
		}
	} else {
		var err error
		if objects, err = t.objects(ctx, "certs/"); err != nil {
			return nil, err
		}
	}
	var keys []string
	for _, object := range objects {
		b, _, err := t.bundle(ctx, siteOf(object), true)
		if _, damaged := errors.AsType[*storage.CorruptError](err); err != nil && !damaged {
			return nil, err
		}
		if b == nil {
			continue
		}
		p := part{issuer: certmagic.StorageKeys.Safe(t.o.IssuerKey(b.CA)), site: siteOf(object)}
		if len(parts) > 1 && p.issuer != parts[1] {
			continue
		}
		keys = append(keys, p.with(".crt").key(), p.with(".json").key(), p.with(".key").key())
	}
	return keys, nil
}

// objects returns all names with the prefix.
func (t *To) objects(ctx context.Context, prefix string) ([]string, error) {
	var all []string
	for after := ""; ; {
		names, err := t.store.List(ctx, prefix, after, 0)
		if err != nil || len(names) == 0 {
			return all, err
		}
		all = append(all, names...)
		after = names[len(names)-1]
	}
}
