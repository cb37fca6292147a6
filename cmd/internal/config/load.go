package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds one file, so that a wrong path (/dev/zero) ends.
const maxFile = 64 << 20

// Load reads the file and those that it includes, and looks whether the files exist that it names. Its error is of type [Faults].
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Faults{{File: path, Problem: "read configuration: " + pathless(err)}}
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	if err := c.checkFiles(); err != nil {
		return nil, err
	}
	if c.file, err = filepath.Abs(path); err != nil {
		return nil, Faults{{File: path, Problem: "find configuration: " + pathless(err)}}
	}
	c.src, c.siteSrc, c.upSrc = nil, nil, nil // the text of the files is not needed any more
	return c, nil
}

// Parse reads a configuration; filename is for faults, and its folder is what relative paths and includes start from. Its error is of type [Faults].
func Parse(filename string, data []byte) (*Config, error) {
	p := &parser{glob: filepath.Glob, read: readFile}
	return p.parse(filename, data)
}

// A parser reads the main file and its includes into one Config.
type parser struct {
	glob   func(pattern string) ([]string, error)
	read   func(path string) ([]byte, error)
	faults Faults
	files  int
}

// included is what may stand in a file that another includes.
type included struct {
	Upstreams map[string]Upstream `toml:"upstream"`
	Sites     []Site              `toml:"site"`
}

func (p *parser) parse(filename string, data []byte) (*Config, error) {
	c := Default()
	c.CAs = nil
	f, tree := p.decode(filename, data)
	c.src = &source{file: f}
	if tree != nil {
		p.bind(f, tree, reflect.ValueOf(c).Elem())
		c.place(f, c.Sites, c.Upstreams)
		p.includes(c)
	}
	if len(p.faults) > 0 && tree == nil {
		return nil, p.faults.orNil()
	}
	if _, named := tree["ca"]; !named {
		c.CAs = Default().CAs
	}
	v := &validator{c: c, faults: p.faults}
	v.all()
	if err := v.faults.orNil(); err != nil {
		return nil, err
	}
	c.warnings = v.warnings.sorted()
	return c, nil
}

// decode checks the syntax. The tree is nil if there was a fault.
func (p *parser) decode(filename string, data []byte) (*file, map[string]any) {
	f := &file{name: filename, text: string(data), order: p.files}
	p.files++
	tree := map[string]any{}
	_, err := toml.Decode(f.text, &tree)
	if err != nil {
		p.faults = append(p.faults, f.syntaxFault(err))
		return f, nil
	}
	f.places = scan(f.text)
	return f, tree
}

// syntaxFault turns the decoder's error into a Fault. What stands behind "=" is not shown where it could be a secret.
func (f *file) syntaxFault(err error) Fault {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return Fault{File: f.name, Problem: "read TOML: " + err.Error(), order: f.order}
	}
	start := min(max(pe.Position.Start, 0), len(f.text))
	line := span{strings.LastIndexByte(f.text[:start], '\n') + 1, len(f.text)}
	if i := strings.IndexByte(f.text[start:], '\n'); i >= 0 {
		line.end = start + i
	}
	problem := pe.Message
	if i := strings.IndexByte(f.text[line.start:line.end], '='); i >= 0 && secretWords(f.text[line.start:line.end]) {
		f.hidden = append(f.hidden, span{line.start + i + 1, line.end})
		problem = "this line is no valid TOML"
	}
	hint := ""
	if strings.Contains(pe.Message, "already") || strings.Contains(pe.Message, "duplicate") {
		hint = "each key and each [table] may stand only once; [[table]] adds one more"
	}
	return f.fault(span{start, start + pe.Position.Len}, problem, hint)
}

// secretWords reports whether a key or a line looks like one with a secret.
func secretWords(line string) bool {
	line = strings.ToLower(line)
	return slices.ContainsFunc([]string{"hmac", "token", "secret", "password", "key", "kid"}, func(w string) bool {
		return strings.Contains(line, w)
	}) || hasUserinfo(line)
}

func (p *parser) bind(f *file, tree map[string]any, v reflect.Value) {
	b := &binder{file: f}
	b.table(spot{}, tree, v)
	p.faults = append(p.faults, b.faults...)
}

// includes merges the files of the include patterns, in name order, each once.
func (p *parser) includes(c *Config) {
	seen := map[string]bool{}
	for i, pattern := range c.Include {
		src := c.src.key("include").elem(i)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(c.src.file.name), pattern)
		}
		names, err := p.glob(pattern)
		if err != nil {
			p.faults = append(p.faults, src.fault("the pattern is malformed", `write "conf.d/*.toml"`))
			continue
		}
		if len(names) == 0 && !strings.ContainsAny(pattern, `*?[\`) {
			p.faults = append(p.faults, src.fault("there is no file "+pattern, "a pattern with * may match nothing, a name may not"))
		}
		slices.Sort(names)
		for _, name := range names {
			if !seen[name] {
				seen[name] = true
				p.include(c, src, name)
			}
		}
	}
}

func (p *parser) include(c *Config, src *source, name string) {
	data, err := p.read(name)
	if err != nil {
		p.faults = append(p.faults, src.fault("read "+name+": "+pathless(err), ""))
		return
	}
	f, tree := p.decode(name, data)
	if tree == nil {
		return
	}
	for _, key := range f.places.inOrder("", keysOf(tree)) {
		if _, known := fieldsOf(reflect.TypeFor[Config]())[key]; known && key != "site" && key != "upstream" {
			p.faults = append(p.faults, (&source{f, key}).faultAtKey(
				fmt.Sprintf("%q cannot stand in an included file", key), "only [[site]] and [upstream.*] may; move it to "+c.src.file.name))
			delete(tree, key)
		}
	}
	var in included
	p.bind(f, tree, reflect.ValueOf(&in).Elem())
	for name := range in.Upstreams {
		if first := c.upSrc[name]; first != nil {
			p.faults = append(p.faults, upstreamIn(f, name).faultAtKey(
				fmt.Sprintf("[upstream.%s] is already at %s", clip(name), first.place()), "give one of them another name"))
			delete(in.Upstreams, name)
		}
	}
	if c.Upstreams == nil {
		c.Upstreams = map[string]Upstream{}
	}
	maps.Copy(c.Upstreams, in.Upstreams)
	c.Sites = append(c.Sites, in.Sites...)
	c.place(f, in.Sites, in.Upstreams)
}

// place notes where sites and upstreams stand.
func (c *Config) place(f *file, sites []Site, upstreams map[string]Upstream) {
	for i := range sites {
		c.siteSrc = append(c.siteSrc, (&source{file: f}).key("site").elem(i))
	}
	if c.upSrc == nil {
		c.upSrc = map[string]*source{}
	}
	for name := range upstreams {
		c.upSrc[name] = upstreamIn(f, name)
	}
}

func upstreamIn(f *file, name string) *source { return (&source{file: f}).key("upstream").key(name) }

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("it is a folder")
	}
	return readAtMost(f, maxFile)
}

// pathless drops the path from the error of a file operation, since it is shown beside it.
func pathless(err error) string {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}
