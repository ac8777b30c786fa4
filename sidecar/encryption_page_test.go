package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The configuration that docs/encryption.md shows is one.
func TestEncryptionPage(t *testing.T) {
	_, text, _ := strings.Cut(page(t, "docs/encryption.md"), "```yaml\n")
	text, _, closed := strings.Cut(text, "```")
	if !closed {
		t.Fatal("docs/encryption.md shows no configuration")
	}
	file := filepath.Join(t.TempDir(), "walbaton.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(sources{getenv: func(string) string { return "" }, flags: map[string]string{"config": file}})
	if err != nil || len(c.encryptTo()) != 2 {
		t.Errorf("got %d recipients, %v", len(c.encryptTo()), err)
	}
}
