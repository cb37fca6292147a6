package config

import (
	"net/url"
	"strings"
)

// storage checks where certificates live, and decides whether private keys may lie there in clear: on the user's own disk, but not in a bucket.
func (v *validator) storage() {
	s, src := &v.c.Storage, v.c.src.key("storage")
	if s.Kind != "s3" {
		if s.Path == "" {
			v.fault(src.key("path"), `write path = "/var/lib/gatelodge"`, "there is no folder for certificates, and no home to take one in")
		}
		if s.S3.LocalCopy != "" {
			v.fault(src.key("s3").key("local_copy"), `write kind = "s3", or leave it out`, "a disk needs no local copy")
		}
	} else {
		v.bucket(src.key("s3"), &s.S3)
		if !v.c.src.has("storage.encryption.require") {
			s.Encryption.Require = true
		}
	}
	if keys := src.key("encryption").key("keys"); len(s.Encryption.Keys) == 0 {
		const hint = `write keys = ["2026-11=file:/etc/gatelodge/kek"], made by: openssl rand -base64 32`
		if s.Encryption.Require {
			v.fault(keys, hint+"; or require = false", "private keys must be sealed, and there is no key to seal them with")
		} else if s.S3.LocalCopy != "" {
			v.fault(keys, hint, "a local copy is sealed, and there is no key to seal it with")
		}
	}
}

func (v *validator) bucket(src *source, s3 *S3) {
	if s3.Bucket == "" {
		v.fault(src.key("bucket"), `write bucket = "certs"`, "an object store needs a bucket")
	}
	if s3.Endpoint != "" {
		u, err := url.Parse(s3.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
			v.fault(src.key("endpoint"), `write "https://s3.example.com"`, "%q is no http:// or https:// URL", withoutQuery(s3.Endpoint))
		}
	}
	if strings.HasPrefix(s3.Prefix, "/") || strings.Contains(s3.Prefix, "//") {
		v.fault(src.key("prefix"), `write "prod/"`, "%q begins with a slash or has an empty part", s3.Prefix)
	}
}
