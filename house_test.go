package couplet_test

import (
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of the module a package's own code may import,
// by prefix. Everybody may import couplet itself; tests may import anything.
var allowed = map[string][]string{
	"couplet":                   {},
	"couplet/internal/timers":   {},
	"couplet/internal/sock":     {},
	"couplet/internal/loop":     {"couplet/internal/"},
	"couplet/internal/netpair":  {}, // for tests
	"couplet/internal/testpeer": {}, // for tests
	"couplet/proactor/ring":     {},
	"couplet/proactor":          {"couplet/proactor/ring", "couplet/internal/"},
	"couplet/reactor":           {"couplet/internal/"},
	"couplet/classic":           {"couplet/internal/timers", "couplet/internal/sock"},
	"couplet/engines":           {"couplet/proactor", "couplet/proactor/ring", "couplet/reactor", "couplet/classic"},
	"couplet/poetry":            {},
	"couplet/enginetest":        {"couplet/internal/"},
	"couplet/bench":             {"couplet/engines", "couplet/poetry", "couplet/internal/timers"},
	"couplet/bench/run":         {"couplet/bench"},
	"couplet/cmd/couplet":       {"couplet/bench", "couplet/engines", "couplet/poetry"},
}

// goFiles calls f for every Go file of the module that is not a test.
func goFiles(t *testing.T, f func(path string, file *ast.File, src []byte)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() {
			if path != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "." {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		f(path, file, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func packageOf(path string) string {
	return strings.TrimSuffix("couplet/"+filepath.ToSlash(filepath.Dir(path)), "/.")
}

func TestImportsPointDown(t *testing.T) {
	goFiles(t, func(path string, file *ast.File, _ []byte) {
		pkg := packageOf(path)
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s: package %s has no place in the house; give it one in this test", path, pkg)
		}
		for _, spec := range file.Imports {
			to := strings.Trim(spec.Path.Value, `"`)
			if to == "couplet" || !strings.HasPrefix(to, "couplet/") {
				continue
			}
			if !slices.ContainsFunc(may, func(p string) bool { return to == p || strings.HasSuffix(p, "/") && strings.HasPrefix(to, p) }) {
				t.Errorf("%s: %s may not import %s", path, pkg, to)
			}
		}
	})
}

// The contract and the engines depend on x/sys and, by tag, giouring alone.
func TestEnginesHaveNoOtherDependency(t *testing.T) {
	goFiles(t, func(path string, file *ast.File, _ []byte) {
		pkg := packageOf(path)
		if strings.HasPrefix(pkg, "couplet/cmd") || pkg == "couplet/poetry" || pkg == "couplet/enginetest" || pkg == "couplet/bench" {
			return
		}
		for _, spec := range file.Imports {
			to := strings.Trim(spec.Path.Value, `"`)
			first, _, _ := strings.Cut(to, "/")
			if strings.Contains(first, ".") && to != "golang.org/x/sys/unix" && to != "github.com/pawelgaczynski/giouring" {
				t.Errorf("%s imports %s", path, to)
			}
		}
	})
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	packages := map[string][]*ast.File{}
	goFiles(t, func(path string, file *ast.File, _ []byte) {
		if file.Name.Name != "main" {
			packages[packageOf(path)] = append(packages[packageOf(path)], file)
		}
	})
	for pkg, files := range packages {
		if !slices.ContainsFunc(files, func(f *ast.File) bool { return f.Doc != nil }) {
			t.Errorf("%s has no package comment", pkg)
		}
		missing := func(name string, text *ast.CommentGroup) {
			if text == nil && ast.IsExported(name) {
				t.Errorf("%s.%s has no doc comment", pkg, name)
			}
		}
		for _, file := range files {
			for _, decl := range file.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil || ast.IsExported(strings.TrimLeft(doc.Synopsis(receiver(d)), "*")) {
						missing(d.Name.Name, d.Doc)
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						switch s := spec.(type) {
						case *ast.TypeSpec:
							if s.Doc == nil {
								missing(s.Name.Name, d.Doc)
							}
						case *ast.ValueSpec:
							if s.Doc == nil && s.Comment == nil {
								missing(s.Names[0].Name, d.Doc)
							}
						}
					}
				}
			}
		}
	}
}

func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	if p, ok := e.(*ast.StarExpr); ok {
		e = p.X
	}
	if p, ok := e.(*ast.IndexExpr); ok {
		e = p.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func TestSourceIsFormatted(t *testing.T) {
	goFiles(t, func(path string, _ *ast.File, src []byte) {
		if out, err := format.Source(src); err != nil || string(out) != string(src) {
			t.Errorf("%s: run gofmt -w (%v)", path, err)
		}
	})
}

// The two engines open side by side: one file per job, the same on both sides,
// with the driver's methods in the same files. What tells of readiness, and the memory
// that the kernel receives into and sends from, are their own.
func TestEnginesOpenSideBySide(t *testing.T) {
	own := map[string][]string{"proactor": {"buffers.go", "bulk.go", "zerocopy.go"}, "reactor": {"poller.go"}}
	files := map[string]map[string][]string{}
	goFiles(t, func(path string, file *ast.File, _ []byte) {
		dir := filepath.Dir(path)
		if dir != "proactor" && dir != "reactor" || slices.Contains(own[dir], filepath.Base(path)) {
			return
		}
		if files[dir] == nil {
			files[dir] = map[string][]string{}
		}
		methods := []string{}
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv != nil && ast.IsExported(d.Name.Name) && receiver(d) == "driver" {
				methods = append(methods, d.Name.Name)
			}
		}
		files[dir][filepath.Base(path)] = methods
	})
	for name, methods := range files["proactor"] {
		other, ok := files["reactor"][name]
		if !ok {
			t.Errorf("proactor/%s has no counterpart in reactor", name)
		} else if !slices.Equal(methods, other) {
			t.Errorf("%s: proactor has %v, reactor has %v", name, methods, other)
		}
	}
	for name := range files["reactor"] {
		if _, ok := files["proactor"][name]; !ok {
			t.Errorf("reactor/%s has no counterpart in proactor", name)
		}
	}
}

// What a connection's life is made of is decided in internal/loop and nowhere
// else: no driver knows the words.
func TestDriversKnowNothingOfTheContract(t *testing.T) {
	words := regexp.MustCompile(`(?i)watermark|half-?close|flush|linger|reason|\bprotocol`)
	goFiles(t, func(path string, _ *ast.File, src []byte) {
		if dir := filepath.Dir(path); dir != "proactor" && dir != "reactor" {
			return
		}
		for i, line := range strings.Split(string(src), "\n") {
			if w := words.FindString(line); w != "" {
				t.Errorf("%s:%d: a driver file mentions %q", path, i+1, w)
			}
		}
	})
}
