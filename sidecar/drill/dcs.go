package drill

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

// DCS is what Patroni agrees in.
type DCS string

const (
	Etcd       DCS = "etcd"
	Consul     DCS = "consul"
	ZooKeeper  DCS = "zookeeper"
	Kubernetes DCS = "kubernetes" // Patroni's objects are Endpoints

	KubernetesConfigMaps DCS = "kubernetes-configmaps"
)

// dcsServer is the one server of a cluster's DCS, seen from outside.
type dcsServer interface {
	start(ctx context.Context) error // returns when it answers; it finds the data of its last life
	stop()                           // kill -9
	signal(s syscall.Signal) error   // SIGSTOP: it neither answers nor breaks connections; SIGCONT
	section(n *Node) string          // what the node's patroni.yml says of it, as YAML
	env(n *Node) []string            // for the node's Patroni and its sidecar
}

func (c *Cluster) newDCS() (dcsServer, error) {
	switch c.o.DCS {
	case Etcd:
		return newEtcd(c)
	case Consul:
		return newConsul(c)
	case Kubernetes:
		return newKubernetes(c, true)
	case KubernetesConfigMaps:
		return newKubernetes(c, false)
	case ZooKeeper:
		return newZooKeeper(c)
	}
	return nil, fmt.Errorf("a cluster on %q: no such DCS", c.o.DCS)
}

// StartDCS starts the DCS and waits until it answers. It keeps its data: Patroni finds the cluster as it left it.
func (c *Cluster) StartDCS(ctx context.Context) error { return c.dcs.start(ctx) }

// StopDCS is kill -9 of the DCS.
func (c *Cluster) StopDCS(context.Context) error {
	c.dcs.stop()
	return nil
}

// FreezeDCS lets the DCS hang, until ThawDCS.
func (c *Cluster) FreezeDCS(context.Context) error { return c.dcs.signal(syscall.SIGSTOP) }

// ThawDCS lets it go on.
func (c *Cluster) ThawDCS(context.Context) error { return c.dcs.signal(syscall.SIGCONT) }

// etcdServer is Debian's etcd.
type etcdServer struct {
	c      *Cluster
	dir    string
	client string // URL
	peer   string
	p      *process
}

func newEtcd(c *Cluster) (*etcdServer, error) {
	dir, err := c.folder("etcd")
	return &etcdServer{c: c, dir: dir, client: fmt.Sprintf("http://%s:%d", c.host(atDCS), c.port(portDCS)),
		peer: fmt.Sprintf("http://127.0.0.1:%d", c.port(portDCSPeer))}, err
}

func (e *etcdServer) start(ctx context.Context) (err error) {
	e.p, err = e.c.spawn("etcd", e.dir, nil, "etcd", "--name", "etcd", "--data-dir", filepath.Join(e.dir, "data"), "--log-level", "warn",
		"--listen-client-urls", e.client, "--advertise-client-urls", e.client,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", "etcd="+e.peer)
	if err != nil {
		return err
	}
	return until(ctx, 30*time.Second, "etcd is healthy", func(ctx context.Context) error {
		code, body, err := get(ctx, e.client+"/health")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
}

func (e *etcdServer) stop() { e.p.kill() }

func (e *etcdServer) signal(s syscall.Signal) error { return e.p.signal(s) }

func (e *etcdServer) section(*Node) string {
	return fmt.Sprintf("etcd3:\n  hosts: %s:%d\n", e.c.host(atDCS), e.c.port(portDCS))
}

func (e *etcdServer) env(*Node) []string { return nil }
