//go:build servers

package seal

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Debian's tools open every object that is not encrypted, from a file and from a pipe, and find nothing
// wrong with it. They must be installed (packages zstd and lz4).
func TestToolsOpenObjects(t *testing.T) {
	large := append(walLike(3<<20), make([]byte, memoryMax)...) // goes through the temp file
	for _, codec := range codecs {
		tool := "lz4"
		if codec == Zstd {
			tool = "zstd"
		}
		for _, plain := range [][]byte{nil, []byte("1\t0/3000000\tno recovery target specified\n"), walLike(16 << 20), large} {
			object := filepath.Join(t.TempDir(), "object")
			if err := os.WriteFile(object, sealed(t, codec, plain), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, nil, tool, "-q", "-t", object)
			if codec == Zstd {
				run(t, nil, tool, "-q", "-d", object, "-o", object+".plain")
			} else {
				run(t, nil, tool, "-q", "-d", object, object+".plain")
			}
			got, err := os.ReadFile(object + ".plain")
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s -d of %d bytes with codec %s: got %d bytes, %v", tool, len(plain), codec, len(got), err)
			}
			bytesOf, err := os.ReadFile(object)
			if err != nil {
				t.Fatal(err)
			}
			if got := run(t, bytesOf, tool, "-q", "-d", "-c"); !bytes.Equal(got, plain) {
				t.Errorf("%s -dc of %d bytes with codec %s from a pipe: got %d bytes", tool, len(plain), codec, len(got))
			}
		}
	}
}

// zstd says what is inside without opening it: one skippable frame, one frame, the size, a checksum.
func TestZstdLists(t *testing.T) {
	object := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(object, sealed(t, Zstd, walLike(16<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	got := string(run(t, nil, "zstd", "-l", "-v", object))
	for _, want := range []string{"Zstandard Frames: 1", "Skippable Frames: 1", "16777216 B", "XXH64"} {
		if !strings.Contains(strings.ReplaceAll(got, "# ", ""), want) {
			t.Errorf("zstd -lv: got\n%s\nwant %q in it", got, want)
		}
	}
}

// The lines of docs/encryption.md open an encrypted object, with Debian's own age (package age). They take a key of age-keygen's and
// one of OpenSSH's.
func TestToolsOpenEncryptedObjects(t *testing.T) {
	page, err := os.ReadFile("../../docs/encryption.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lines, ok := strings.Cut(string(page), "\nn=$(od ") // behind the names of the object and of the file, which are ours here
	lines, _, closed := strings.Cut("n=$(od "+lines, "```")
	if !ok || !closed || !strings.Contains(lines, "age -d") {
		t.Fatal("docs/encryption.md has no lines that open an object")
	}
	dir := t.TempDir()
	run(t, nil, "age-keygen", "-o", filepath.Join(dir, "key.txt"))
	public := strings.TrimSpace(string(run(t, nil, "age-keygen", "-y", filepath.Join(dir, "key.txt"))))
	run(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "ssh"))
	sshPublic, err := os.ReadFile(filepath.Join(dir, "ssh.pub"))
	if err != nil {
		t.Fatal(err)
	}
	plain := walLike(16 << 20)
	name := someHeader.Name
	for _, recipient := range []string{public, string(sshPublic)} {
		to, err := ParseRecipient(recipient)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), sealed(t, Zstd, plain, to), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", lines)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "KEY=key.txt", "OBJECT="+name, "PLAIN="+name+".plain")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("the lines of docs/encryption.md: %v\n%s", err, out)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name+".plain")); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("to %.20s: got %d bytes, %v", recipient, len(got), err)
		}
		if err := os.Rename(filepath.Join(dir, "ssh"), filepath.Join(dir, "key.txt")); err != nil && recipient == public {
			t.Fatal(err) // the second time the lines take OpenSSH's key
		}
	}
}

func run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, errs.Bytes())
	}
	return out.Bytes()
}
