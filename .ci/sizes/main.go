// Sizes reports what has grown larger than the project likes: files over 500 lines, functions over 80 lines,
// interfaces over 6 methods. It only reports: where something is better large, a sentence in the file says why.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxFile      = 500
	maxFunction  = 80
	maxInterface = 6
)

func main() {
	if err := report("."); err != nil {
		fmt.Fprintln(os.Stderr, "sizes:", err)
		os.Exit(1)
	}
}

// report prints a line for everything too large in the Go files below root, except tests and testdata.
func report(root string) error {
	found := 0
	say := func(where token.Position, what string, size, limit int) {
		if size > limit {
			found++
			fmt.Printf("%s:%d: %s: %d (%d)\n", where.Filename, where.Line, what, size, limit)
		}
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		return measure(path, say)
	})
	if err == nil {
		fmt.Printf("%d over the size they should have\n", found)
	}
	return err
}

func measure(path string, say func(where token.Position, what string, size, limit int)) error {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	say(set.Position(file.Package), "lines of file", set.File(file.Package).LineCount(), maxFile)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			lines := set.Position(n.End()).Line - set.Position(n.Pos()).Line + 1
			say(set.Position(n.Pos()), "lines of func "+n.Name.Name, lines, maxFunction)
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok {
				say(set.Position(n.Pos()), "methods of interface "+n.Name.Name, i.Methods.NumFields(), maxInterface)
			}
		}
		return true
	})
	return nil
}
