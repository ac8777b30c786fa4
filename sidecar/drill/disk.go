package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// A node's disk is where its data directory is, and keep_dir beside it: the node's folder, or, with [Options].DiskMB, a
// tmpfs of that size, which is mounted in the drill's own namespace. The node's configuration and logs are never on that one.

// disk is the folder of the data directory.
func (n *Node) disk() string {
	if n.diskMB() == 0 {
		return n.Dir
	}
	return filepath.Join(n.Dir, smallDisk)
}

func (n *Node) diskMB() int { return n.c.o.DiskMB[n.Name] }

const smallDisk = "disk"

// ballast is a file that only takes place.
func (n *Node) ballast() string { return filepath.Join(n.disk(), "ballast") }

// mount makes the node's small disk, if it is to have one. It refuses to do that in the machine's own namespace.
func (n *Node) mount() error {
	if n.diskMB() == 0 {
		return nil
	}
	if os.Getenv("WALBATON_LANE") == "" {
		return errors.New("mount a small disk: this is the machine's own namespace: make one, with unshare --net --pid --fork --mount-proc, and set WALBATON_LANE=1")
	}
	if err := os.Mkdir(n.disk(), 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", n.disk(), "tmpfs", 0, fmt.Sprintf("size=%dm", n.diskMB())); err != nil {
		return fmt.Errorf("mount %s: %w", n.disk(), err)
	}
	return n.c.own(n.disk())
}

// unmount takes away the small disks of a cluster's folder. Nobody works there any more.
func unmount(dir string) {
	disks, _ := filepath.Glob(filepath.Join(dir, "*", smallDisk)) // the pattern is good
	for _, d := range disks {
		syscall.Unmount(d, syscall.MNT_DETACH) // what was never mounted is no mount
	}
}

// FillDisk fills the node's small disk, but for so many bytes, until FreeDisk.
func (n *Node) FillDisk(_ context.Context, leave uint64) error {
	free, err := n.DiskFree()
	if err != nil || free <= leave {
		return err
	}
	f, err := os.OpenFile(n.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, zeros{}, int64(free-leave))
	if errors.Is(err, syscall.ENOSPC) { // somebody else was faster
		err = nil
	}
	return errors.Join(err, f.Close())
}

// FreeDisk takes away what FillDisk wrote.
func (n *Node) FreeDisk(context.Context) error { return os.Remove(n.ballast()) }

// GrowDisk gives the node's small disk another size.
func (n *Node) GrowDisk(_ context.Context, mb int) error {
	return syscall.Mount("tmpfs", n.disk(), "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%dm", mb))
}

// DiskFree is how many bytes are free on the node's disk.
func (n *Node) DiskFree() (uint64, error) {
	if n.diskMB() == 0 {
		return 0, fmt.Errorf("the disk of %s is the machine's", n.Name)
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(n.disk(), &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// zeros is a reader without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
