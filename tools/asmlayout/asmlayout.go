// Package asmlayout lets tests hold the constants of the assembly's generator against the types that it knows the layout of.
package asmlayout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"testing"
)

// Check fails the test, of a package two folders below the repository's, if a constant in a file of the generator is missing or not what it is to be.
func Check(t *testing.T, name string, want map[string]uintptr) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "tools", "asmgen", name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uintptr{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if value, ok := spec.Values[0].(*ast.BasicLit); ok {
			v, err := strconv.Atoi(value.Value)
			if err != nil {
				t.Fatal(err)
			}
			got[spec.Names[0].Name] = uintptr(v)
		}
		return true
	})
	for name, want := range want {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("the generator has %s = %d (%v), the types %d", name, v, ok, want)
		}
	}
}
