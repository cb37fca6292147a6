package devca

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestImports_AreTheStandardLibraryAndGoJose: a client that is tested against devca must not share code with it, or both would be wrong together. And the
// module oldclients builds devca beside libraries of 2017.
func TestImports_AreTheStandardLibraryAndGoJose(t *testing.T) {
	entries, err := os.ReadDir(".")
	must(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		must(t, err)
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			must(t, err)
			first, _, _ := strings.Cut(path, "/")
			if (strings.Contains(first, ".") || first == "gatelodge") && path != "github.com/go-jose/go-jose/v4" {
				t.Errorf("%s imports %s", e.Name(), path)
			}
		}
	}
}
