//go:build servers

package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"

	"github.com/walbaton/walbaton/leader/dcs/dcstest"
)

const namespace = "db"

// cluster is what helm installed, with its pods.
type cluster struct {
	*kubelet
	kubeconfig string
	set        apps.StatefulSet
	pods       []*pod
}

// TestPods lets helm install a Patroni cluster from nothing, runs its pods, switches it over, kills the primary's pod and stops a whole one in order. The
// archive has every segment afterwards, and helm's own test says so.
func TestPods(t *testing.T) {
	for _, images := range [][]string{nil, {"node"}} {
		if out, err := try("../../.ci/image", images...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("/tmp", "walbaton-pods-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	archive := filepath.Join(dir, "archive")
	if err := os.Mkdir(archive, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(archive, 0o777); err != nil { // the pods' user, whoever that is
		t.Fatal(err)
	}

	gateway := bridge(t, dir)
	k := &kubelet{t: t, api: dcstest.NewAPIServer(t, net.ParseIP(gateway)), gateway: gateway, namespace: namespace, dir: dir}
	c := &cluster{kubelet: k, kubeconfig: k.api.Kubeconfig(t, dcstest.AdminToken)}
	c.install(dir, archive)
	for i := range int(*c.set.Spec.Replicas) {
		c.pods = append(c.pods, k.play(ctx, c.set, i))
	}
	primary := c.settled(ctx, "the cluster starts")
	c.insert(primary, "first")

	next := c.other(primary)
	c.say("switchover from %s to %s", primary.name, next.name)
	c.switchover(primary, next)
	primary = c.settled(ctx, "the switchover")
	if primary != next {
		t.Fatalf("%s is the primary, want %s", primary.name, next.name)
	}
	c.insert(primary, "second")

	c.say("kill %s, the primary's pod", primary.name)
	killed := primary
	killed.kill()
	primary = c.leads(ctx, "the failover", killed)
	c.insert(primary, "third")
	c.again(ctx, killed)
	primary = c.settled(ctx, "the killed pod comes back")

	c.say("delete %s, the primary's pod", primary.name)
	c.insert(primary, "fourth")
	primary.stop()
	stopped := primary
	c.leads(ctx, "the failover after it", stopped)
	c.again(ctx, stopped)
	primary = c.settled(ctx, "the deleted pod comes back")
	c.insert(primary, "fifth")
	c.whole(ctx, primary)
	c.tested(ctx, primary)
}

// bridge is the address of this machine on the network of the pods. The network is there as long as a container is in it.
func bridge(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Base(dir) + "-bridge"
	t.Cleanup(func() { podman(t, "rm", "--force", "--time", "0", "--ignore", name) })
	podman(t, "run", "--detach", "--name", name, "--network", "podman", "localhost/debian:bookworm", "sleep", "infinity")
	return strings.TrimSpace(podman(t, "inspect", "--format", "{{.NetworkSettings.Gateway}}", name))
}

func (c *cluster) say(format string, args ...any) { c.t.Logf(format, args...) }

// install installs the chart, in its mode that makes a cluster from nothing, with the images that are here.
func (c *cluster) install(dir, archive string) {
	c.t.Helper()
	values := filepath.Join(dir, "values.yaml")
	text := fmt.Sprintf(`image: {registry: localhost, tag: latest}
archive: {url: "file:///archive"}
sidecar:
  extraVolumeMounts: [{name: archive, mountPath: /archive}]
extraVolumes: [{name: archive, hostPath: {path: %s}}]
patroni:
  enabled: true
  flavor: patroni
  image: {repository: localhost/walbaton-node, tag: latest}
  config: {postgresql: {bin_dir: /usr/lib/postgresql/15/bin}} # Debian does not have it in PATH
`, archive)
	if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if out, err := c.helm("install", "shop", "../walbaton", "--create-namespace", "--values", values); err != nil {
		c.t.Fatalf("helm install: %v\n%s", err, out)
	}
	var sets apps.StatefulSetList
	c.do(http.MethodGet, "/apis/apps/v1/namespaces/"+namespace+"/statefulsets", nil, &sets)
	if len(sets.Items) != 1 {
		c.t.Fatalf("%d StatefulSets", len(sets.Items))
	}
	c.set = sets.Items[0]
}

func (c *cluster) helm(args ...string) (string, error) {
	return try(dcstest.Tool(c.t, "helm@v3.22.0"), append(args, "--kubeconfig", c.kubeconfig, "--namespace", namespace)...)
}

// member is what Patroni tells of one.
type member struct{ Name, Role, State string }

// members asks the Patroni of a pod.
func (c *cluster) members(ctx context.Context, p *pod) ([]member, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.ip+":8008/cluster", nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct{ Members []member }
	return answer.Members, json.NewDecoder(resp.Body).Decode(&answer)
}

// leads waits until a pod is the primary that is not the given one.
func (c *cluster) leads(ctx context.Context, what string, not *pod) (primary *pod) {
	c.t.Helper()
	until(ctx, c.t, 90*time.Second, what, func() error {
		for _, p := range c.pods {
			if p == not {
				continue
			}
			out, err := c.psql(p, "select pg_is_in_recovery()")
			if err == nil && out == "f" {
				primary = p
				return nil
			}
		}
		return fmt.Errorf("no primary: %s", c.pods[0].logs(c.postgres(), 3))
	})
	return primary
}

// settled waits until all members run, and every sidecar is content.
func (c *cluster) settled(ctx context.Context, what string) (primary *pod) {
	c.t.Helper()
	until(ctx, c.t, 120*time.Second, what, func() error {
		for _, p := range c.pods {
			members, err := c.members(ctx, p)
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", p.name, err, p.logs(c.postgres(), 5))
			}
			running := 0
			for _, m := range members {
				if m.State == "running" || m.State == "streaming" {
					running++
				}
			}
			if running != len(c.pods) {
				return fmt.Errorf("%s sees %+v", p.name, members)
			}
			if out, err := c.walbaton(p, "status"); err != nil {
				return fmt.Errorf("walbaton status on %s: %w\n%s", p.name, err, out)
			}
		}
		return nil
	})
	return c.leads(ctx, what, nil)
}

func (c *cluster) other(not *pod) *pod {
	for _, p := range c.pods {
		if p != not {
			return p
		}
	}
	return nil
}

// again is what the controller does after a pod of the set is gone.
func (c *cluster) again(ctx context.Context, gone *pod) {
	c.t.Helper()
	for i, p := range c.pods {
		if p == gone {
			c.pods[i] = c.play(ctx, c.set, i)
		}
	}
}

// postgres is the container with PostgreSQL, sidecar that of walbaton.
func (c *cluster) postgres() string { return c.set.Spec.Template.Spec.Containers[0].Name }

func (c *cluster) walbaton(p *pod, args ...string) (string, error) {
	return p.exec("walbaton", append([]string{"/usr/local/bin/walbaton"}, args...)...)
}

func (c *cluster) psql(p *pod, query string) (string, error) {
	out, err := p.exec(c.postgres(), "psql", "-h", "/tmp", "-U", "postgres", "-XAtc", query)
	return strings.TrimSpace(out), err
}

// insert writes rows that say when, and ends the segment with them.
func (c *cluster) insert(p *pod, when string) {
	c.t.Helper()
	for _, query := range []string{"create table if not exists rows (n int, t text)",
		"insert into rows select n, '" + when + "' from generate_series(1, 10000) n", "select pg_switch_wal()"} {
		if out, err := c.psql(p, query); err != nil {
			c.t.Fatalf("%s on %s: %v\n%s", query, p.name, err, out)
		}
	}
}

func (c *cluster) switchover(from, to *pod) {
	c.t.Helper()
	body := fmt.Sprintf(`{"leader": %q, "candidate": %q}`, from.name, to.name)
	resp, err := http.Post("http://"+from.ip+":8008/switchover", "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("switchover: %s", resp.Status)
	}
}

// whole fails unless the archive has all that the cluster wrote, and every record in it is good.
func (c *cluster) whole(ctx context.Context, p *pod) {
	c.t.Helper()
	until(ctx, c.t, 60*time.Second, "the last segment is archived", func() error {
		out, err := c.walbaton(p, "status")
		if err == nil && !strings.Contains(out, "nothing waits") {
			err = fmt.Errorf("something waits:\n%s", out)
		}
		return err
	})
	out, err := c.walbaton(p, "verify", "--deep", "--tree")
	if err != nil {
		c.t.Fatalf("walbaton verify --deep: %v\n%s", err, out)
	}
	c.say("%s", out)
	rows, err := c.psql(p, "select string_agg(t || ' ' || n, ', ' order by t) from (select t, count(*) n from rows group by t) r")
	if err != nil || rows != "fifth 10000, first 10000, fourth 10000, second 10000, third 10000" {
		c.t.Errorf("the rows are %q (%v)", rows, err)
	}
}
