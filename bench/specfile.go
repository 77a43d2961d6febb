package bench

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSpecFile is the most bytes of a workload file.
const maxSpecFile = 64 << 10

// ReadWorkload reads a Custom from a YAML file; docs/reading-a-report.md has the
// keys. What the file does not say is zero, as WithDefaults takes it. An error is
// one line that names the file, the line in it, the value, and what would be right.
func ReadWorkload(path string) (Workload, error) {
	// To open a pipe may wait for ever.
	switch info, err := os.Stat(path); {
	case err != nil:
		return Workload{}, err
	case info.IsDir():
		return Workload{}, fmt.Errorf("%s is a directory; want a workload file", path)
	case !info.Mode().IsRegular():
		return Workload{}, fmt.Errorf("%s is no regular file; want a workload file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return Workload{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpecFile+1))
	switch {
	case err != nil:
		return Workload{}, err
	case len(text) > maxSpecFile:
		return Workload{}, fmt.Errorf("%s is longer than %s; want a workload file", path, bytesText(maxSpecFile))
	case !utf8.Valid(text):
		return Workload{}, fmt.Errorf("%s is not UTF-8 text; want a workload file in YAML", path)
	}
	return parseWorkload(path, text)
}

// parseWorkload reads the text of the file at path.
func parseWorkload(path string, text []byte) (Workload, error) {
	file, err := parser.ParseBytes(text, 0)
	var at yaml.Error
	switch {
	case errors.As(err, &at):
		return Workload{}, fmt.Errorf("%s:%d: this is not YAML: %s", path, at.GetToken().Position.Line, complaint(at.GetMessage()))
	case err != nil:
		return Workload{}, fmt.Errorf("%s: this is not YAML: %s", path, complaint(err.Error()))
	}
	docs := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool {
		_, comment := d.Body.(*ast.CommentGroupNode)
		return d.Body == nil || comment
	})
	switch {
	case len(docs) == 0:
		return Workload{}, fmt.Errorf("%s is empty; want a workload, such as the two lines %q and %q", path, "request: 200", "response: 4KiB")
	case len(docs) > 1:
		return Workload{}, fmt.Errorf("%s has %d documents; want one workload in each file", path, len(docs))
	}
	w := Workload{Kind: Custom, Spec: &Spec{Name: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))}}
	r := specReader{path}
	if err := r.workload(&w, docs[0].Body); err != nil {
		return Workload{}, err
	}
	if err := checkName(w.Spec.Name); err != nil {
		return Workload{}, fmt.Errorf("%s: the name of the file is that of the workload, and %w; or add a name", path, err)
	}
	return w, nil
}

// complaint is what the parser says, in one line, and what to do about a tab, which
// nobody sees.
func complaint(message string) string {
	message, _, _ = strings.Cut(message, "\n")
	shown := strings.ReplaceAll(message, "\t", `\t`)
	if shown != message || strings.Contains(message, "tab character") {
		shown += "; indent with spaces, not with tabs"
	}
	return shown
}

// A specReader reads the nodes of one file.
type specReader struct{ path string }

// fail is an error at a node.
func (r specReader) fail(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.path, n.GetToken().Position.Line, fmt.Errorf(format, args...))
}

// A field is a key that a mapping may have, and what takes its value.
type field struct {
	key  string
	take func(value ast.Node) error
}

// fields hands the values of a mapping to those who take them, and returns the
// keys that there were.
func (r specReader) fields(n ast.Node, what string, fields ...field) (given map[string]ast.Node, err error) {
	var keys []string
	for _, f := range fields {
		keys = append(keys, f.key)
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		return nil, r.fail(n, "%s is %s; want keys and values, of %s", what, nodeText(n), strings.Join(keys, ", "))
	}
	given = map[string]ast.Node{}
	for pairs := m.MapRange(); pairs.Next(); {
		key := pairs.Key().GetToken().Value
		i := slices.Index(keys, key)
		if i < 0 {
			return nil, r.fail(pairs.Key(), "%s has no key %s; want %s", what, quote(key), strings.Join(keys, ", "))
		}
		given[key] = pairs.Key()
		if err := fields[i].take(pairs.Value()); err != nil {
			return nil, err
		}
	}
	return given, nil
}

func (r specReader) workload(w *Workload, n ast.Node) error {
	s := w.Spec
	given, err := r.fields(n, "a workload",
		field{"name", func(n ast.Node) (err error) {
			s.Name = scalar(n)
			if err := checkName(s.Name); err != nil {
				return r.fail(n, "name: %w", err)
			}
			return nil
		}},
		field{"connections", r.count("connections", &w.Connections, 500_000)},
		field{"depth", r.count("depth", &w.Depth, 1<<16)},
		field{"rate", r.float("rate", &w.Rate, func(v float64) error {
			if !(v > 0) || v > 1e8 {
				return fmt.Errorf("%v is out of bounds; want requests per second, more than 0 and at most 100 million", v)
			}
			return nil
		})},
		field{"request", r.dist("request", &s.Request, requestBytes)},
		field{"response", r.dist("response", &s.Response, responseBytes)},
		field{"ratio", r.float("ratio", &s.Ratio, checkRatio)},
		field{"think", r.dist("think", &s.Think, thinkTime)},
		field{"lifetime", func(n ast.Node) error {
			given, err := r.fields(n, "lifetime",
				field{"requests", r.dist("lifetime requests", &s.Requests, lifeRequests)},
				field{"time", r.dist("lifetime time", &s.Life, lifeTime)})
			if err == nil && len(given) != 1 {
				return r.fail(n, "lifetime has %d keys; want requests or time", len(given))
			}
			return err
		}})
	if err != nil {
		return err
	}
	for _, pair := range [][3]string{
		{"response", "ratio", "they are two ways to say one thing"},
		{"rate", "think", "a rate sends by the clock and does not wait for answers"},
		{"rate", "depth", "a rate sends by the clock and does not wait for answers"},
	} {
		if a, b := given[pair[0]], given[pair[1]]; a != nil && b != nil {
			if a.GetToken().Position.Line > b.GetToken().Position.Line {
				b = a
			}
			return r.fail(b, "%s and %s do not go together: %s; use one of them", pair[0], pair[1], pair[2])
		}
	}
	switch {
	case given["request"] == nil:
		return fmt.Errorf("%s has no request; want its bytes, such as %q", r.path, "request: 200")
	case given["response"] == nil && given["ratio"] == nil:
		return fmt.Errorf("%s has no response; want its bytes, such as %q, or a ratio", r.path, "response: 4KiB")
	}
	return nil
}

// count takes a whole number from 1 to most.
func (r specReader) count(key string, to *int, most int) func(ast.Node) error {
	return func(n ast.Node) error {
		v, ok := parseCount(scalar(n))
		if !ok || v < 1 || v > int64(most) {
			return r.fail(n, "%s is %s; want a whole number from 1 to %d", key, nodeText(n), most)
		}
		*to = int(v)
		return nil
	}
}

// float takes a number that check finds good.
func (r specReader) float(key string, to *float64, check func(float64) error) func(ast.Node) error {
	return func(n ast.Node) error {
		v, err := strconv.ParseFloat(scalar(n), 64)
		if err != nil || math.IsNaN(v) {
			return r.fail(n, "%s is %s; want a number", key, nodeText(n))
		}
		if check != nil {
			if err := check(v); err != nil {
				return r.fail(n, "%s: %w", key, err)
			}
		}
		*to = v
		return nil
	}
}

// value takes one value of a quantity; what checks the whole checks its bounds.
func (r specReader) value(key string, to *int64, q quantity) func(ast.Node) error {
	return func(n ast.Node) error {
		v, ok := q.parse(scalar(n))
		if !ok {
			return r.fail(n, "%s is %s; %s", key, nodeText(n), q.want)
		}
		if err := q.bounds(v); err != nil {
			return r.fail(n, "%s: %w", key, err)
		}
		*to = v
		return nil
	}
}

// dist takes a distribution: a value, a list of values with weights, or a mapping
// with the parameters of one of the others.
func (r specReader) dist(key string, to *Dist, q quantity) func(ast.Node) error {
	return func(n ast.Node) error {
		var err error
		switch n := n.(type) {
		case *ast.SequenceNode:
			err = r.choices(key, to, q, n)
		case ast.MapNode:
			err = r.shape(key, to, q, n.(ast.Node))
		default:
			err = r.value(key, &to.Constant, q)(n)
		}
		if err == nil {
			if err = to.check(q); err != nil {
				err = r.fail(n, "%s: %w", key, err)
			}
		}
		return err
	}
}

func (r specReader) choices(key string, to *Dist, q quantity, n *ast.SequenceNode) error {
	if len(n.Values) == 0 {
		return r.fail(n, "%s is an empty list; want values with weights, such as [{%s: %s, weight: 1}]", key, q.entry, strings.ReplaceAll(q.text(q.least), " ", ""))
	}
	for _, entry := range n.Values {
		var c Choice
		given, err := r.fields(entry, "an entry of "+key,
			field{q.entry, r.value(key, &c.Value, q)},
			field{"weight", r.float("weight", &c.Weight, nil)})
		if err != nil {
			return err
		}
		if len(given) < 2 {
			return r.fail(entry, "an entry of %s lacks a key; want both %s and weight", key, q.entry)
		}
		to.Choices = append(to.Choices, c)
	}
	return nil
}

func (r specReader) shape(key string, to *Dist, q quantity, n ast.Node) error {
	given, err := r.fields(n, key,
		field{"min", r.value(key+" min", &to.Min, q)}, field{"max", r.value(key+" max", &to.Max, q)},
		field{"mean", r.value(key+" mean", &to.Mean, q)},
		field{"median", r.value(key+" median", &to.Median, q)}, field{"p99", r.value(key+" p99", &to.P99, q)},
		field{"cap", r.value(key+" cap", &to.Cap, q)})
	if err != nil {
		return err
	}
	without := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(s string) bool { return given[s] != nil })
	}
	with := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(s string) bool { return given[s] == nil })
	}
	switch {
	case with("min", "max") && without("mean", "median", "p99", "cap"):
	case with("mean") && without("min", "max", "median", "p99"):
		if to.Mean == 0 {
			return r.fail(given["mean"], "%s mean is 0; want more", key)
		}
	case with("median", "p99") && without("min", "max", "mean"):
	default:
		return r.fail(n, "%s has keys that make no distribution; want min and max, or mean, or median and p99, the last two with or without cap", key)
	}
	return nil
}

// scalar is the text of a node that is one value, or "".
func scalar(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode, *ast.LiteralNode:
	case ast.ScalarNode:
		return strings.TrimSpace(n.GetToken().Value)
	}
	return ""
}

// nodeText is a node as an error quotes it.
func nodeText(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "a mapping"
	case *ast.NullNode:
		return "empty"
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "an anchor, an alias or a tag"
	}
	return quote(strings.TrimSpace(n.GetToken().Value))
}

// quote quotes text, and of a long one the beginning: a file that is no workload may be
// one value.
func quote(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		return strconv.Quote(string(runes[:most])) + "..."
	}
	return strconv.Quote(text)
}
