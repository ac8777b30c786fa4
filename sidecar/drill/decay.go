package drill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// FreezeSidecar stops the sidecar alone, until ThawSidecar.
func (n *Node) FreezeSidecar(context.Context) error { return n.sidecar.signal(syscall.SIGSTOP) }

// ThawSidecar lets it go on.
func (n *Node) ThawSidecar(context.Context) error { return n.sidecar.signal(syscall.SIGCONT) }

// FreezeReceiver stops the walreceiver of a standby, which then has what it has, until Thaw. PostgreSQL and Patroni live.
func (n *Node) FreezeReceiver(context.Context) error {
	for _, pid := range Below(n.PGData()) {
		title, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "cmdline"))
		if err == nil && strings.Contains(string(title), "walreceiver") {
			return syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
	return fmt.Errorf("freeze the walreceiver of %s: there is none", n.Name)
}

// DamageWAL changes some bytes in the middle of a segment in the node's pg_wal, as a bad disk does. What the drill's
// writer writes fills the segments, so they belong to a record.
func (n *Node) DamageWAL(name string) error {
	f, err := os.OpenFile(filepath.Join(n.PGData(), "pg_wal", name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const page = 8192
	at := int64(n.c.segmentSize()/2 + page/2) // not the head of a page
	b := make([]byte, 16)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	for i := range b {
		b[i] ^= 0xFF
	}
	_, err = f.WriteAt(b, at)
	return err
}
