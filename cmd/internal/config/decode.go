package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Position is a place in the configuration file. Line and Column count from 1;
// zero means that the place is not known.
type Position struct {
	Line, Column int
}

// Issue is one finding about a configuration file. Its text never holds key
// material.
type Issue struct {
	File     string
	Position Position
	Text     string
}

// Error writes file:line:column: text, the form that editors jump to.
func (i Issue) Error() string {
	if i.Position.Line == 0 {
		return fmt.Sprintf("%s: %s", i.File, i.Text)
	}
	return fmt.Sprintf("%s:%d:%d: %s", i.File, i.Position.Line, i.Position.Column, i.Text)
}

// scalar is what a typed value of the schema implements: it reads itself from
// the text of one YAML scalar. Its error says what was expected and must not
// repeat the text if the text is secret.
type scalar interface{ parse(text string) error }

// Limits on what a file may hold, so that a broken or hostile one costs little.
const (
	fileBytesMax = 64 << 20
	depthMax     = 16
	issuesMax    = 50
	bracketsMax  = 1000 // open at once, as a count of octets sees them
)

// decoder walks the YAML tree beside the schema's Go types. Unlike a decoder by
// struct tags alone it knows the position of every value, keeps the order of
// mappings and goes on after an error, so that one run shows all of them.
type decoder struct {
	file   string
	issues []error
	// at holds the position of every value by its path, e.g. "connections.site-b.children.net.remote_ts".
	at map[string]Position
}

func (d *decoder) fail(p Position, format string, args ...any) {
	if len(d.issues) < issuesMax {
		d.issues = append(d.issues, Issue{d.file, p, fmt.Sprintf(format, args...)})
	}
}

// decode fills out, a pointer to a struct of the schema, from text.
func (d *decoder) decode(text []byte, out any) (err error) {
	defer func() {
		// The parser is a foreign library; what it cannot take must not stop a running daemon.
		if r := recover(); r != nil {
			err = Issue{File: d.file, Text: "not YAML that this parser can read"}
		}
	}()
	if len(text) > fileBytesMax {
		return Issue{File: d.file, Text: fmt.Sprintf("larger than %d bytes", fileBytesMax)}
	}
	if line := tooDeep(text); line > 0 {
		return Issue{d.file, Position{line, 1}, fmt.Sprintf("more than %d brackets are open", bracketsMax)}
	}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		// The library's own text quotes the lines around the error, which may hold keys.
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return Issue{d.file, place(syntax.Token), shorten(syntax.Message)}
		}
		return Issue{File: d.file, Text: "not valid YAML"}
	}
	var documents []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			documents = append(documents, doc.Body)
		}
	}
	switch {
	case len(documents) == 0:
		return Issue{File: d.file, Text: "empty: at least interfaces and connections are needed"}
	case len(documents) > 1:
		return Issue{d.file, place(documents[1].GetToken()), "a second YAML document; one file holds one"}
	}
	d.value(documents[0], reflect.ValueOf(out).Elem(), "", 0)
	return errors.Join(d.issues...)
}

// tooDeep returns the line at which more than bracketsMax brackets and braces are open, 0 if there is none. The
// parser's time grows with the square of that: a hundred thousand take it minutes. Brackets in text
// count too; nobody writes so many.
func tooDeep(text []byte) int {
	line, open := 1, 0
	for _, c := range text {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if open++; open > bracketsMax {
				return line
			}
		case ']', '}':
			open = max(0, open-1)
		}
	}
	return 0
}

func place(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{}
	}
	return Position{t.Position.Line, t.Position.Column}
}

// shorten bounds text of the file that stands in an error.
func shorten(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// value decodes node into v, whose place in the schema is path.
func (d *decoder) value(node ast.Node, v reflect.Value, path string, depth int) {
	position := place(node.GetToken())
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 {
		position = place(m.Values[0].Key.GetToken())
	} else if m, ok := node.(*ast.MappingValueNode); ok {
		position = place(m.Key.GetToken())
	}
	if _, known := d.at[path]; !known {
		d.at[path] = position
	}
	if depth > depthMax {
		d.fail(position, "nested deeper than %d levels", depthMax)
		return
	}
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		d.fail(position, "%s: anchors, aliases and tags are not supported; write the value out", name(path))
		return
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		text, ok := scalarText(node)
		if !ok {
			d.fail(position, "%s: expected a single value, got %s", name(path), kind(node))
			return
		}
		if err := s.parse(text); err != nil {
			d.fail(position, "%s: %v", name(path), err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(node, v, path, depth)
	case reflect.Slice:
		if keyField(v.Type().Elem()) >= 0 {
			d.named(node, v, path, depth)
		} else {
			d.sequence(node, v, path, depth)
		}
	case reflect.String:
		text, ok := scalarText(node)
		if !ok {
			d.fail(position, "%s: expected text, got %s", name(path), kind(node))
			return
		}
		v.SetString(text)
	case reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			d.fail(position, "%s: expected true or false, got %s", name(path), kind(node))
			return
		}
		v.SetBool(b.Value)
	case reflect.Int:
		i, ok := node.(*ast.IntegerNode)
		if !ok {
			d.fail(position, "%s: expected a whole number, got %s", name(path), kind(node))
			return
		}
		switch n := i.Value.(type) {
		case int64:
			v.SetInt(n)
		case uint64:
			if n > 1<<62 {
				d.fail(position, "%s: the number is too large", name(path))
				return
			}
			v.SetInt(int64(n))
		}
	default:
		panic("config: schema holds a type the decoder does not know: " + v.Type().String())
	}
}

func (d *decoder) mapping(node ast.Node, v reflect.Value, path string, depth int) {
	entries, ok := mappingEntries(node)
	if !ok {
		d.fail(place(node.GetToken()), "%s: expected a mapping, got %s", name(path), kind(node))
		return
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag != "" && tag != ",key" {
			fields[tag] = i
			names = append(names, tag)
		}
	}
	seen := map[string]bool{}
	for _, e := range entries {
		key, position := e.Key.GetToken().Value, place(e.Key.GetToken())
		i, known := fields[key]
		switch {
		case e.Key.IsMergeKey():
			d.fail(position, "merge keys are not supported; write the values out")
			continue
		case !known:
			in := "here"
			if path != "" {
				in = "in " + path
			}
			d.fail(position, "unknown key %q %s: did you mean %q?", shorten(key), in, nearest(key, names))
			continue
		case seen[key]:
			d.fail(position, "key %q stands here twice", key)
			continue
		}
		seen[key] = true
		sub := join(path, key)
		d.at[sub] = position
		if _, null := e.Value.(*ast.NullNode); null || e.Value == nil {
			d.fail(position, "%s has no value", sub)
			continue
		}
		d.value(e.Value, v.Field(i), sub, depth+1)
	}
}

// named decodes a mapping of names to structs into a slice, in the file's order.
func (d *decoder) named(node ast.Node, v reflect.Value, path string, depth int) {
	entries, ok := mappingEntries(node)
	if !ok {
		d.fail(place(node.GetToken()), "%s: expected a mapping of names, got %s", name(path), kind(node))
		return
	}
	element := v.Type().Elem()
	out := reflect.MakeSlice(v.Type(), 0, len(entries))
	seen := map[string]bool{}
	for _, e := range entries {
		key, position := e.Key.GetToken().Value, place(e.Key.GetToken())
		if seen[key] {
			d.fail(position, "key %q stands here twice", shorten(key))
			continue
		}
		seen[key] = true
		if key == "" || len(key) > 128 {
			d.fail(position, "%s: a name has 1 to 128 characters", name(path))
			continue
		}
		item := reflect.New(element).Elem()
		if def, ok := item.Addr().Interface().(interface{ setDefaults() }); ok {
			def.setDefaults()
		}
		item.Field(keyField(element)).SetString(key)
		sub := join(path, key)
		d.at[sub] = position
		if _, null := e.Value.(*ast.NullNode); null || e.Value == nil {
			d.fail(position, "%s has no value", sub)
			continue
		}
		d.value(e.Value, item, sub, depth+1)
		out = reflect.Append(out, item)
	}
	v.Set(out)
}

// sequence decodes a list; a single value stands for a list of one, and a
// scalar with commas for a list, as in swanctl.conf. A distinguished name has commas too, and equals signs.
func (d *decoder) sequence(node ast.Node, v reflect.Value, path string, depth int) {
	element := v.Type().Elem()
	out := reflect.MakeSlice(v.Type(), 0, 4)
	add := func(n ast.Node, i int) {
		item := reflect.New(element).Elem()
		if def, ok := item.Addr().Interface().(interface{ setDefaults() }); ok {
			def.setDefaults()
		}
		d.value(n, item, fmt.Sprintf("%s[%d]", path, i), depth+1)
		out = reflect.Append(out, item)
	}
	if seq, ok := node.(*ast.SequenceNode); ok {
		for i, n := range seq.Values {
			add(n, i)
		}
	} else if text, ok := scalarText(node); ok && strings.Contains(text, ",") && !strings.Contains(text, "=") {
		for i, part := range strings.Split(text, ",") {
			item := reflect.New(element).Elem()
			if element.Kind() == reflect.String && !isScalar(item) {
				item.SetString(strings.TrimSpace(part))
				out = reflect.Append(out, item)
				continue
			}
			s, ok := item.Addr().Interface().(scalar)
			if !ok {
				d.fail(place(node.GetToken()), "%s: expected a list", name(path))
				return
			}
			if err := s.parse(strings.TrimSpace(part)); err != nil {
				d.fail(place(node.GetToken()), "%s: %v", name(path), err)
			}
			d.at[fmt.Sprintf("%s[%d]", path, i)] = place(node.GetToken())
			out = reflect.Append(out, item)
		}
	} else {
		// A lone value is called by the list's own name.
		item := reflect.New(element).Elem()
		d.value(node, item, path, depth+1)
		out = reflect.Append(out, item)
	}
	v.Set(out)
}

func isScalar(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(scalar)
	return ok
}

func mappingEntries(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch m := node.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	return nil, false
}

// scalarText returns the text of a scalar as it stands in the file, so that
// 0x1001 and a hexadecimal key of digits only arrive unchanged.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// kind names a node for an error without its text.
func kind(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	}
	return "text"
}

func keyField(t reflect.Type) int {
	if t.Kind() != reflect.Struct {
		return -1
	}
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == ",key" {
			return i
		}
	}
	return -1
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func name(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// nearest returns the known word with the smallest edit distance from word.
func nearest(word string, known []string) string {
	best, bestDistance := "", int(^uint(0)>>1)
	if len(word) > 64 {
		word = word[:64]
	}
	for _, k := range known {
		if n := levenshtein.ComputeDistance(strings.ToLower(word), k); n < bestDistance {
			best, bestDistance = k, n
		}
	}
	return best
}
