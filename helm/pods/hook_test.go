//go:build servers

package pods

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// tested lets helm test the release twice: it passes while all is in order, and fails once a standby's sidecar is stopped.
func (c *cluster) tested(ctx context.Context, primary *pod) {
	c.t.Helper()
	if said, err := c.test(ctx); err != nil || !strings.Contains(said, "cluster   shop") {
		c.t.Fatalf("helm test: %v; its pod says\n%s", err, said)
	}
	standby := c.other(primary)
	c.say("stop the sidecar of %s", standby.name)
	podman(c.t, "stop", "--time", "20", standby.containers["walbaton"])
	want := "no sidecar answers beside " + standby.name
	until(ctx, c.t, 30*time.Second, want, func() error {
		if out, err := c.walbaton(primary, "status"); err == nil || !strings.Contains(out, want) {
			return errors.New(out)
		}
		return nil
	})
	if said, err := c.test(ctx); err == nil || !strings.Contains(err.Error(), "failed") || !strings.Contains(said, want) {
		c.t.Errorf("helm test: %v, want that it fails; its pod says\n%s\nwant in it: %s", err, said, want)
	}
}

// test runs helm test, which makes a pod and waits for its end, and runs that pod meanwhile. It gives what the pod says, and helm's verdict.
func (c *cluster) test(ctx context.Context) (said string, verdict error) {
	c.t.Helper()
	ended := make(chan error, 1)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		_, err := c.helm("test", "shop", "--timeout", "40s")
		ended <- err
	})
	var made core.Pod
	until(ctx, c.t, 20*time.Second, "helm makes the pod of its test", func() error {
		var pods core.PodList
		c.do(http.MethodGet, c.path("pods?labelSelector=app.kubernetes.io%2Fcomponent%3Dtest"), nil, &pods)
		at := slices.IndexFunc(pods.Items, func(p core.Pod) bool { return p.Status.Phase == core.PodPending })
		if at < 0 {
			return errors.New("there is none that waits")
		}
		made = pods.Items[at]
		return nil
	})
	said = c.once(made)
	return said, <-ended
}

// once runs a pod that somebody made, whose one container ends, and gives what that prints. The pod's object stays, with its end.
func (k *kubelet) once(made core.Pod) string {
	k.t.Helper()
	p := &pod{k: k, name: made.Name, object: made, containers: map[string]string{}}
	p.prepare(k.hosts()...)
	if len(made.Spec.Containers) != 1 || len(made.Spec.InitContainers) > 0 || made.Spec.RestartPolicy != core.RestartPolicyNever {
		k.t.Fatalf("%s is not a pod of one container that ends", made.Name)
	}
	c := made.Spec.Containers[0]
	out, err := tryPodman(append([]string{"run", "--rm", "--name", p.container(c.Name)}, p.arguments(c)...)...)
	phase := core.PodSucceeded
	if err != nil {
		phase, out = core.PodFailed, out+err.Error()
	}
	p.report(phase, false)
	p.remove()
	return out
}

// hosts are the Services, NAME:IP for each pod behind one: what DNS and kube-proxy do elsewhere, as long as a Service has the ports of its pods.
func (k *kubelet) hosts() (all []string) {
	k.t.Helper()
	var services core.ServiceList
	k.do(http.MethodGet, k.path("services"), nil, &services)
	for _, s := range services.Items {
		if len(s.Spec.Selector) == 0 {
			continue
		}
		var pods core.PodList
		k.do(http.MethodGet, k.path("pods?labelSelector="+url.QueryEscape(labels.FormatLabels(s.Spec.Selector))), nil, &pods)
		for _, p := range pods.Items {
			for _, port := range s.Spec.Ports {
				if to := number(port.TargetPort, slices.Concat(p.Spec.InitContainers, p.Spec.Containers)...); to != strconv.Itoa(int(port.Port)) {
					k.t.Fatalf("the Service %s has the port %d for %s: this kubelet cannot", s.Name, port.Port, to)
				}
			}
			all = append(all, s.Name+":"+p.Status.PodIP)
		}
	}
	return all
}
