//go:build servers

package packaging

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/docs"
)

// machine is a container whose first process is systemd: PostgreSQL, Patroni and etcd as Debian has them.
type machine struct {
	t    *testing.T
	name string
	user string // who types
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	run(t, "../.ci/image", "node")
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t, filepath.Base(scratchDir(t)), "root"}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("podman", "exec", m.name, "journalctl", "--no-pager", "-n", "200")
			t.Log(out)
		}
		run(t, "podman", "rm", "--force", "--time", "0", "--ignore", m.name)
	})
	run(t, "podman", "--runtime", "runc", "run", "--detach", "--systemd=always", "--name", m.name, "--hostname", "n1",
		"--ulimit", "nofile=10000:10000", "--ulimit", "nproc=5000:5000", "--network", "none", "--volume", root+":/mnt/source:ro", "localhost/walbaton-node")
	return m
}

// sh runs commands in the checkout, as a person would.
func (m *machine) sh(script string) (string, error) {
	return try("podman", "exec", "--user", m.user, "--workdir", "/mnt/source", m.name, "sh", "-euc", "export PATH=$PATH:/usr/lib/postgresql/15/bin\n"+script)
}

func (m *machine) do(script string) string {
	m.t.Helper()
	out, err := m.sh(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// until repeats commands until they succeed and print what is wanted.
func (m *machine) until(limit time.Duration, script, want string) string {
	m.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(500 * time.Millisecond) {
		out, err := m.sh(script)
		if err == nil && strings.Contains(shape(out), shape(want)) {
			return out
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: %v, and it does not print %q:\n%s", script, err, want, out)
		}
	}
}

// TestInstallVM types docs/install-vm.md on a machine with a real systemd, and then lets systemd do what its unit says.
func TestInstallVM(t *testing.T) {
	page, err := docs.Read("..", "docs/install-vm.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	m.until(30*time.Second, "systemctl is-system-running || true", "running")
	m.do(machineSetup)
	m.user = "postgres" // who may use sudo
	m.until(60*time.Second, "patronictl -c /etc/patroni/config.yml list", "running")

	for _, b := range page.Of(t.Name()) {
		switch {
		case b.Where == "where one builds":
			build := exec.Command("bash", "-euc", b.Text)
			build.Dir = ".."
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", b, err, out)
			}
		case b.Kind == "console":
			m.console(b.Text)
		default:
			m.do(b.Text)
		}
		if strings.Contains(b.Text, "dpkg -i") {
			if out := m.do("sudo systemctl is-enabled walbaton || sudo systemctl is-active walbaton || true"); out != "disabled\ninactive\n" {
				t.Errorf("after the installation the unit is %q", out)
			}
		}
	}
	m.until(60*time.Second, "walbaton status", "nothing waits here")

	t.Run("the unit", func(t *testing.T) {
		m := &machine{t, m.name, m.user}
		m.do("sudo systemd-analyze verify --man=no walbaton.service")
		// 10 is the worst; what forbids itself nothing has 9.
		t.Log(m.do("systemd-analyze security --offline=true --threshold=25 --no-pager /usr/lib/systemd/system/walbaton.service | tail -n 1"))
	})
	t.Run("systemd restarts one that hangs", func(t *testing.T) {
		m := &machine{t, m.name, m.user}
		m.do(`sudo mkdir -p /run/systemd/system/walbaton.service.d
printf '[Service]\nWatchdogSec=3\n' | sudo tee /run/systemd/system/walbaton.service.d/soon.conf
sudo systemctl daemon-reload && sudo systemctl restart walbaton`)
		pid := m.do("sudo systemctl show -P MainPID walbaton")
		m.do("kill -STOP " + pid)
		m.until(30*time.Second, "sudo journalctl -u walbaton -o cat --no-pager", "Watchdog timeout")
		m.until(30*time.Second, "walbaton status", "nothing waits here")
		if again := m.do("sudo systemctl show -P MainPID walbaton"); again == pid {
			t.Errorf("it still is process %s", pid)
		}
	})
	t.Run("it stops after Patroni", func(t *testing.T) {
		m := &machine{t, m.name, m.user}
		m.do("psql -XAtc 'create table last as select generate_series(1, 100000)' && sudo systemctl stop patroni walbaton")
		log := m.do("sudo journalctl -u patroni -u walbaton -o short-precise --no-pager | grep 'systemd.*Stopped'")
		if !regexp.MustCompile(`(?s)patroni\.service.*walbaton\.service`).MatchString(log) {
			t.Errorf("the units stopped in another order:\n%s", log)
		}
		// What PostgreSQL wrote last went through the sidecar, which was still there.
		if out := m.do("walbaton verify"); !strings.Contains(out, "No problem was found.") {
			t.Errorf("walbaton verify says\n%s", out)
		}
	})
	t.Run("upgrade and removal", func(t *testing.T) {
		m := &machine{t, m.name, m.user}
		m.replaced()
	})
}

// replaced installs the package over itself, and removes it.
func (m *machine) replaced() {
	m.t.Helper()
	const again = "sudo dpkg -i dist/walbaton_*.deb >/dev/null; sudo systemctl show -P MainPID walbaton"
	if pid := m.do(again); pid != "0\n" {
		m.t.Errorf("an upgrade starts a sidecar that was stopped, as process %s", pid)
	}
	m.do("sudo systemctl start walbaton")
	before := m.do("sudo systemctl show -P MainPID walbaton")
	if after := m.do(again); after == before || after == "0\n" {
		m.t.Errorf("the running sidecar was process %s and after the upgrade it is %s", before, after)
	}
	m.do("sudo dpkg -r walbaton >/dev/null")
	if out := m.do("sudo systemctl is-active walbaton || true; ls /usr/bin/walbaton* || true"); out != "inactive\n" {
		m.t.Errorf("after the removal there is %s", out)
	}
}

// console types the commands of a block, and waits until each prints the lines below it, but for numbers and gaps. A line may end with more.
func (m *machine) console(text string) {
	m.t.Helper()
	for _, part := range strings.Split("\n"+text, "\n$ ")[1:] {
		command, prints, _ := strings.Cut(part, "\n")
		for line := range strings.Lines(prints) {
			m.until(30*time.Second, command, strings.TrimSpace(line))
		}
	}
}

// shape is a text without numbers and gaps.
func shape(s string) string { return regexp.MustCompile(`[0-9A-F ]+`).ReplaceAllString(s, "") }

// machineSetup makes a Patroni cluster of one node, "shop", out of what Debian's packages bring.
const machineSetup = `
cat >/etc/patroni/config.yml <<END
scope: shop
name: n1
restapi: {listen: "127.0.0.1:8008", connect_address: "127.0.0.1:8008"}
etcd3: {host: "127.0.0.1:2379"}
bootstrap:
  dcs: {loop_wait: 2, ttl: 20, retry_timeout: 5}
  initdb: [{auth: trust}, data-checksums]
postgresql:
  listen: 127.0.0.1:5432
  connect_address: 127.0.0.1:5432
  data_dir: /var/lib/postgresql/15/main
  bin_dir: /usr/lib/postgresql/15/bin
  parameters: {unix_socket_directories: /var/run/postgresql}
  authentication: {superuser: {username: postgres}, replication: {username: replicator}}
  pg_hba: ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
END
chown postgres /etc/patroni/config.yml
install -d -o postgres /mnt/archive
echo 'postgres ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/postgres
systemctl start etcd patroni
`
