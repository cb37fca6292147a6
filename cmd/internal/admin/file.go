package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// fileKey is the query parameter by which a client says with which file it believes the process to run.
const fileKey = "file"

func withFile(file string) string {
	if file == "" {
		return ""
	}
	return "?" + url.Values{fileKey: {file}}.Encode()
}

// checkFile refuses what is meant for another file than the one in force: a reload and an upgrade read that again, and no other.
func (s *Server) checkFile(r *http.Request) error {
	meant, ours := r.URL.Query().Get(fileKey), s.cfg.Config().File()
	switch {
	case meant == "" || sameFile(meant, ours):
		return nil
	case ours == "":
		return fmt.Errorf("this process runs without a configuration file, not with %s: start one with that file", meant)
	}
	return fmt.Errorf("this process runs with %s, not with %s: write -c %[1]s, or restart it with the other file", ours, meant)
}

// sameFile takes two names of one file for the same: links, and folders behind links.
func sameFile(a, b string) bool {
	if filepath.Clean(a) == b {
		return true
	}
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
