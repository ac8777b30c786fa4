package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// When a cluster's nodes are apart, each has a network namespace of its own with a cable to one bridge. The bridge is in the
// namespace of the drill, where the DCS, the store and the drill itself have an address each:
//
//	10.99.0.1 the drill   10.99.0.2 DCS   10.99.0.3 store        10.99.0.11 n1   10.99.0.12 n2   10.99.0.13 n3
//	----------------------------- bridge ------------------------------ | ------------- | ------------- |
//
// Otherwise all of them are 127.0.0.1.
const (
	atDrill = 1
	atDCS   = 2
	atStore = 3
	atNode  = 10 // + number of the node
)

const bridge = "drill0"

// host is the address of a place in the network.
func (c *Cluster) host(place int) string {
	if !c.o.Apart {
		return "127.0.0.1"
	}
	return fmt.Sprintf("10.99.0.%d", place)
}

// lay makes the bridge. It refuses to do that in the machine's own network: a drill runs in a namespace (TestMain).
func (c *Cluster) lay(ctx context.Context) error {
	if os.Getenv("WALBATON_LANE") == "" {
		return errors.New("lay a network: this is the machine's own: make a namespace, with unshare --net --pid --fork --mount-proc, and set WALBATON_LANE=1")
	}
	return ip(ctx, nil, []string{"link add " + bridge + " type bridge",
		"addr add " + c.host(atDrill) + "/24 dev " + bridge, "addr add " + c.host(atDCS) + "/24 dev " + bridge, "addr add " + c.host(atStore) + "/24 dev " + bridge,
		"link set " + bridge + " up"})
}

// plug makes the node's namespace, kept by a process that sleeps in it, and its cable.
func (n *Node) plug(ctx context.Context) error {
	sleep := exec.Command("sleep", "infinity")
	sleep.Dir = n.c.Dir // not the node's: it outlives Kill
	sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	if n.c.o.Machines {
		sleep.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	}
	var err error
	if n.network, err = launch(sleep); err != nil {
		return err
	}
	cable, pid := "to-"+n.Name, sleep.Process.Pid
	err = ip(ctx, nil, []string{fmt.Sprintf("link add %s type veth peer name eth0 netns %d", cable, pid),
		fmt.Sprintf("link set %s master %s up", cable, bridge)})
	if err != nil {
		return err
	}
	return ip(ctx, n, []string{"link set lo up", "addr add " + n.host() + "/24 dev eth0", "link set eth0 up"})
}

// inside makes a command run in the node's network, and among its files where it has some of its own, still as the user that it was for.
func (n *Node) inside(cmd *exec.Cmd) *exec.Cmd {
	if n == nil || n.network == nil {
		return cmd
	}
	args := []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", n.network.cmd.Process.Pid)}
	if n.c.o.Machines {
		args = append(args, fmt.Sprintf("--mount=/proc/%d/ns/mnt", n.network.cmd.Process.Pid), "--wdns="+cmp.Or(cmd.Dir, "/"))
	}
	args = append(args, "--")
	if cred := cmd.SysProcAttr; cred != nil && cred.Credential != nil {
		args = append(args, "setpriv", fmt.Sprintf("--reuid=%d", cred.Credential.Uid), fmt.Sprintf("--regid=%d", cred.Credential.Gid), "--clear-groups", "--")
		cred.Credential = nil
	}
	cmd.Args = append(append(args, cmd.Path), cmd.Args[1:]...)
	cmd.Path, cmd.Err = exec.LookPath("nsenter")
	return cmd
}

// ip runs lines of ip(8) in the network of a node, or, for nil, in the drill's.
func ip(ctx context.Context, n *Node, lines []string) error {
	for _, line := range lines {
		if err := Run(n.inside(exec.CommandContext(ctx, "sh", "-c", "exec ip "+line))); err != nil {
			return err
		}
	}
	return nil
}

// CutFromDCS drops every packet between the node and the DCS, in both directions, until Mend.
func (n *Node) CutFromDCS(ctx context.Context) error { return n.cut(ctx, nil, atDCS) }

// CutFromStore does so between the node and the archive; the store must be MinIO.
func (n *Node) CutFromStore(ctx context.Context) error { return n.cut(ctx, nil, atStore) }

// CutFrom does so between two nodes.
func (n *Node) CutFrom(ctx context.Context, other *Node) error {
	return n.cut(ctx, other, atNode+other.no)
}

// cut drops what leaves the node for a place, and what leaves that place, in the network of peer, for the node.
func (n *Node) cut(ctx context.Context, peer *Node, place int) error {
	if n.network == nil {
		return errors.New("cut a node off: its cluster was not made with Options.Apart")
	}
	there := n.c.host(place)
	for _, r := range []rule{{n, fmt.Sprintf("to %s", there)}, {peer, fmt.Sprintf("from %s to %s", there, n.host())}} {
		if err := ip(ctx, r.in, []string{"rule add " + r.what + " pref 1 blackhole"}); err != nil {
			return err
		}
		n.cuts = append(n.cuts, r)
	}
	return nil
}

// rule is one that drops packets, in the network of a node or, for nil, of the drill.
type rule struct {
	in   *Node
	what string
}

// Mend ends everything that cut the node off.
func (n *Node) Mend(ctx context.Context) (err error) {
	for _, r := range n.cuts {
		err = errors.Join(err, ip(ctx, r.in, []string{"rule del " + r.what + " pref 1 blackhole"}))
	}
	n.cuts = nil
	return err
}
