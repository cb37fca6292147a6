package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The places that a story's steps name: "(file.go: funcName, Type.Method)", or "(room/file.go: ...)" in a room below.
var place = regexp.MustCompile(`\(((?:[a-z0-9_]+/)*[a-z0-9_]+\.go): ([A-Za-z0-9_.,\s]+)\)`)

func TestStories_NameFilesAndFunctionsThatExist(t *testing.T) {
	for _, room := range []string{"proxy", "proxy/upstream", "proxy/certs", "acmeclient"} {
		t.Run(room, func(t *testing.T) {
			dir := filepath.Join("../..", room)
			doc, err := os.ReadFile(filepath.Join(dir, "doc.go"))
			if err != nil {
				t.Fatal(err)
			}
			text := regexp.MustCompile(`\n//\s*`).ReplaceAllString(string(doc), " ")
			places := place.FindAllStringSubmatch(text, -1)
			if len(places) < 5 {
				t.Fatalf("doc.go names %d places, a story has more", len(places))
			}
			for _, p := range places {
				has := declared(t, filepath.Join(dir, p[1]))
				for name := range strings.SplitSeq(p[2], ",") {
					if name = strings.TrimSpace(name); !has[name] {
						t.Errorf("doc.go names %s in %s, which does not declare it", name, p[1])
					}
				}
			}
		})
	}
}

// declared returns the functions ("f"), methods ("T.M") and types of a file.
func declared(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	has := map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			has[receiver(d)+d.Name.Name] = true
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					has[s.Name.Name] = true
				}
			}
		}
	}
	return has
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.Name + "."
		default:
			return ""
		}
	}
}

// A promise without a test that fails when it is broken is none.
func TestThreatModel_NamesTestsThatExist(t *testing.T) {
	doc, err := os.ReadFile("../../proxy/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, pattern := range []string{"../../proxy/*_test.go", "../../proxy/*/*_test.go"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			for name := range declared(t, file) {
				has[name] = true
			}
		}
	}
	names := regexp.MustCompile("`(Test[A-Z]\\w+)`").FindAllStringSubmatch(string(doc), -1)
	if len(names) < 15 {
		t.Fatalf("only %d tests are named", len(names))
	}
	for _, name := range names {
		if !has[name[1]] {
			t.Errorf("THREATS.md names %s, which is no test of the proxy", name[1])
		}
	}
}
