//go:build servers

package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/docs"
)

// run runs a program and gives what it wrote to stdout; stderr is part of the failure.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := try(program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// try gives what a program wrote, and with an error what it wrote to stderr, too.
func try(program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

// podman is the command line of a container that may do nothing it need not: no privilege, a root that is read-only, and no files in memory
// over it, as Kubernetes has it.
func podman(more ...string) []string {
	return append([]string{"--runtime", "runc", "run", "--rm", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=5000:5000", "--network", "none",
		"--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}, more...)
}

// scratchDir is a folder that every user may search; t.TempDir is not.
func scratchDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "walbaton-packaging-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImage(t *testing.T) {
	version := strings.TrimSpace(run(t, "../.ci/version"))
	page, err := docs.Read("..", "docs/image.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range page.Of(t.Name()) {
		if out := run(t, "bash", "-euc", "cd ..\n"+b.Text); !strings.HasSuffix(out, "walbaton "+version+"\n") {
			t.Errorf("%v prints\n%s", b, out)
		}
	}

	t.Run("any user", func(t *testing.T) {
		for _, user := range []string{"", "26:26", "1234567:0"} {
			args := podman("localhost/walbaton", "version")
			if user != "" {
				args = podman("--user", user, "localhost/walbaton", "version")
			}
			if got, want := run(t, "podman", args...), "walbaton "+version+"\n"; got != want {
				t.Errorf("user %q: got %q, want %q", user, got, want)
			}
		}
	})
	t.Run("says what is missing", func(t *testing.T) {
		out, err := try("podman", podman("--user", "4711", "localhost/walbaton", "sidecar", "--dcs-kind", "static", "--scope", "shop",
			"--name", "n1", "--postgres-data-dir", "/nowhere")...)
		if err == nil || !strings.Contains(out, "no archive is configured") {
			t.Errorf("got %v and %q", err, out)
		}
	})
	for image, limit := range map[string]int{"walbaton": 100, "walbaton-client": 4} {
		t.Run(image, func(t *testing.T) {
			size, err := strconv.Atoi(strings.TrimSpace(run(t, "podman", "image", "inspect", "--format", "{{.Size}}", "localhost/"+image)))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.1f MB", float64(size)/1e6)
			if size > limit<<20 {
				t.Errorf("%d bytes, want at most %d MB", size, limit)
			}
			if user := strings.TrimSpace(run(t, "podman", "image", "inspect", "--format", "{{.User}}", "localhost/"+image)); user != "65532:65532" {
				t.Errorf("it runs as %q unless told otherwise", user)
			}
			if label := run(t, "podman", "image", "inspect", "--format", `{{index .Labels "org.opencontainers.image.version"}}`, "localhost/"+image); strings.TrimSpace(label) != version {
				t.Errorf("its version is %q, want %q", label, version)
			}
			want := []string{"usr/local/bin/walbaton-wal"}
			if image == "walbaton" {
				want = []string{"etc/ssl/certs/ca-certificates.crt", "usr/local/bin/walbaton", "usr/local/bin/walbaton-wal"}
			}
			if got := files(t, "localhost/"+image); !slices.Equal(got, want) {
				t.Errorf("it holds %q, want %q: no shell, nothing else", got, want)
			}
		})
	}
}

// files are those of an image, without what the runtime mounts.
func files(t *testing.T, image string) (names []string) {
	t.Helper()
	id := strings.TrimSpace(run(t, "podman", "--runtime", "runc", "create", image))
	defer run(t, "podman", "rm", id)
	list := filepath.Join(t.TempDir(), "root.tar")
	run(t, "podman", "export", "-o", list, id)
	mounted := regexp.MustCompile(`^(dev|proc|sys|run)/|^etc/(hosts|hostname|resolv\.conf|mtab)$`)
	for _, name := range strings.Fields(run(t, "tar", "-tf", list)) {
		if !strings.HasSuffix(name, "/") && !mounted.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A PostgreSQL without walbaton gets the client out of the small image, through a shared folder, and archives through a sidecar that runs in the
// other one, as the user that PostgreSQL has.
func TestImagesArchive(t *testing.T) {
	run(t, "../.ci/image")
	dir := scratchDir(t)
	pg, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pg", "archive", "run", "client"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "chown", "-R", "postgres:", dir)
	owner := pg.Uid + ":" + pg.Gid

	run(t, "podman", podman("--user", owner, "-v", filepath.Join(dir, "client")+":/walbaton", "localhost/walbaton-client")...)
	if got, want := names(t, filepath.Join(dir, "client")), []string{"walbaton-wal"}; !slices.Equal(got, want) {
		t.Fatalf("the small image put %q into the shared folder, want %q", got, want)
	}
	run(t, "podman", podman("--user", owner, "-v", filepath.Join(dir, "client")+":/shared", "--entrypoint", "/usr/local/bin/walbaton-wal", "localhost/walbaton", "install", "/shared")...)
	if got, want := names(t, filepath.Join(dir, "client")), []string{"walbaton", "walbaton-wal"}; !slices.Equal(got, want) {
		t.Fatalf("then the large one made that %q, want %q", got, want)
	}

	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bins) == 0 {
		t.Fatalf("no PostgreSQL in /usr/lib/postgresql (%v)", err)
	}
	bin, data := bins[len(bins)-1], filepath.Join(dir, "pg", "data")
	as := func(args ...string) string {
		return run(t, "runuser", append([]string{"-u", "postgres", "--"}, args...)...)
	}
	as(filepath.Join(bin, "initdb"), "-D", data, "--auth=trust", "--no-sync")
	config := "listen_addresses = ''\nunix_socket_directories = '" + filepath.Join(dir, "run") + "'\nfsync = off\narchive_mode = on\n" +
		"archive_command = '" + filepath.Join(dir, "client", "walbaton-wal") + " push --socket " + filepath.Join(dir, "run", "walbaton.sock") + " %p'\n"
	if err := os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	as(filepath.Join(bin, "pg_ctl"), "-D", data, "-l", filepath.Join(dir, "pg", "log"), "-w", "start")
	defer as(filepath.Join(bin, "pg_ctl"), "-D", data, "-m", "immediate", "stop")

	// The same paths inside and outside, and no other.
	sidecar := exec.Command("podman", podman("--user", owner, "--name", filepath.Base(dir),
		"-v", filepath.Join(dir, "pg")+":"+filepath.Join(dir, "pg"), "-v", filepath.Join(dir, "run")+":"+filepath.Join(dir, "run"), "-v", filepath.Join(dir, "archive")+":/archive",
		"localhost/walbaton", "sidecar", "--dcs-kind", "static", "--scope", "shop", "--name", "n1", "--postgres-data-dir", data,
		"--archive", "file:///archive", "--socket", filepath.Join(dir, "run", "walbaton.sock"))...)
	var log bytes.Buffer
	sidecar.Stdout, sidecar.Stderr = &log, &log
	if err := sidecar.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		if out, err := try("podman", "stop", "-t", "20", filepath.Base(dir)); err != nil {
			t.Errorf("stop the sidecar: %v\n%s", err, out)
		}
		_ = sidecar.Wait() // its code is looked at where it matters
	}
	defer stop()

	psql := func(query string) string {
		return strings.TrimSpace(as(filepath.Join(bin, "psql"), "-h", filepath.Join(dir, "run"), "-XAtc", query))
	}
	psql("select pg_switch_wal()")
	for deadline := time.Now().Add(60 * time.Second); psql("select archived_count > 0 from pg_stat_archiver") != "t"; time.Sleep(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			stop()
			t.Fatalf("nothing is archived; the sidecar says\n%s", log.String())
		}
	}
	if got := run(t, "podman", "exec", filepath.Base(dir), "/usr/local/bin/walbaton", "list", "--archive", "file:///archive", "--scope", "shop"); !strings.Contains(got, "000000010000000000000001") {
		t.Errorf("walbaton list in the container says\n%s", got)
	}
	stop()
	if code := sidecar.ProcessState.ExitCode(); code != 0 {
		t.Errorf("SIGTERM ended the sidecar with %d\n%s", code, log.String())
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
