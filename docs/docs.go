// Package docs reads the pages for people, so that tests can run the commands in them: the README, the pages of this folder, and those of
// helm and examples.
//
// The first line of a fenced block says what is in it. A block with commands also names the test that runs it:
//
//		```sh run=TestDrillPages
//		walbaton status
//		```
//
//	  - sh: commands, as a person pastes them.
//	  - console: commands on lines that begin with "$ ", and below each what it prints. A line of that must come, but for its numbers and the gaps.
//	  - A block of commands that no test can run has a comment instead of run=: "# not run: " and the reason. In all pages together at most five do.
//	  - Anything else is what it is: yaml, json, conf, text for what a program prints.
//
// A comment before a block, <!-- every node -->, says where it is typed; what the words mean is up to the test.
//
// TestPageBlocks in package main of sidecar holds all pages to this. TestDrillPages in sidecar/drill types what bears its name on a real cluster,
// page by page, from the top, so a page for administrators needs nothing but these two words. A test of another kind reads its blocks by
// [Page.Of] and runs them as it likes.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Page is one of them, taken apart.
type Page struct {
	Name     string // its path in the checkout, with slashes
	Blocks   []Block
	Sections []string   // its headings of the second level, in order
	Rows     [][]string // the cells of all its tables
}

// Block is a fenced block.
type Block struct {
	Page    string
	Line    int    // of its fence, from 1
	Section string // the heading of the second level above it
	Where   string // the comment right before it
	Kind    string // the first word of its fence: sh, console, yaml
	Run     string // the test that runs it
	Text    string // whole lines, without the indentation of its fence
}

func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// Commands says whether it holds commands.
func (b Block) Commands() bool { return b.Kind == "sh" || b.Kind == "console" }

// notRun begins the comment of a block that no test can run.
const notRun = "# not run: "

// NotRun is the reason why no test runs the block, or "".
func (b Block) NotRun() string {
	for line := range strings.Lines(b.Text) {
		if reason, ok := strings.CutPrefix(strings.TrimSpace(line), notRun); ok {
			return reason
		}
	}
	return ""
}

// Of are the blocks that a test has to run, in order.
func (p Page) Of(test string) []Block {
	return slices.DeleteFunc(slices.Clone(p.Blocks), func(b Block) bool { return b.Run != test })
}

// Root is the folder of go.mod, in or above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the checkout: no folder above has a go.mod: %w", fs.ErrNotExist)
		}
	}
}

// Pages are all of a checkout, the README first and then by name.
func Pages(root string) ([]Page, error) {
	names := []string{"README.md"}
	for _, folder := range []string{"docs", "examples", "helm"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
				return err
			}
			name, err := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var pages []Page
	for _, name := range names {
		p, err := Read(root, name)
		if err != nil {
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}

// Read reads one page of a checkout.
func Read(root, name string) (Page, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return Page{}, err
	}
	return parse(name, string(text))
}

// parse takes a page apart. What it knows of Markdown is what our pages use.
func parse(name, text string) (Page, error) {
	p := Page{Name: name}
	section, where, indent, no := "", "", "", 0
	var open *Block
	for line := range strings.Lines(text) {
		no++
		bare := strings.TrimSpace(line)
		switch {
		case open != nil && bare == "```":
			p.Blocks = append(p.Blocks, *open)
			open, where = nil, ""
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent)
		case strings.HasPrefix(bare, "```"):
			indent = line[:strings.Index(line, "`")]
			open = &Block{Page: name, Line: no, Section: section, Where: where}
			words := strings.Fields(strings.TrimPrefix(bare, "```"))
			if len(words) > 0 {
				open.Kind = words[0]
			}
			for _, w := range words[min(1, len(words)):] {
				test, ok := strings.CutPrefix(w, "run=")
				if !ok {
					return Page{}, fmt.Errorf("%v: %q is not known behind the kind of a block: there is run=TestName", open, w)
				}
				open.Run = test
			}
		case strings.HasPrefix(bare, "<!-- "):
			where = strings.TrimSuffix(strings.TrimPrefix(bare, "<!-- "), " -->")
		case strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
			p.Sections = append(p.Sections, section)
		case strings.HasPrefix(line, "| "):
			cells := strings.Split(strings.Trim(bare, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			p.Rows = append(p.Rows, cells)
		case bare != "":
			where = "" // a comment is about the block right behind it
		}
	}
	if open != nil {
		return Page{}, fmt.Errorf("%v: this block is never closed", open)
	}
	return p, nil
}
