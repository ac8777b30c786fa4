package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walbaton/walbaton/sidecar/doctor"
)

// lookHere examines this machine. Without a data directory and without a sidecar it is none of a member.
func lookHere(cfg Config) (l *doctor.Local, why string) {
	dir := cfg.Postgres.DataDir
	switch {
	case dir == "" && !exists(cfg.Socket):
		return nil, "no data directory is configured"
	case !exists(dir) && !exists(cfg.Socket):
		return nil, "there is no data directory " + dir + " here"
	}
	l = &doctor.Local{DataDir: dir, Socket: cfg.Socket, KeepDir: cfg.KeepDir, Owner: -1, SidecarUID: -1}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err == nil {
		l.Owner, l.OwnerIs = int(st.Uid), userNameOf(int(st.Uid))
	}
	l.DataErr, l.SystemID = lookAtData(dir)
	l.WALErr = lookAtWAL(dir)
	l.SidecarUID, l.SocketErr = whoListens(cfg.Socket)
	l.SocketShut = errors.Is(unix.Access(cfg.Socket, unix.W_OK), fs.ErrPermission)
	if l.SidecarUID >= 0 {
		l.SidecarIs = userNameOf(l.SidecarUID)
	}
	l.KeepErr = lookAtKeepDir(cfg.KeepDir)
	return l, ""
}

// closed says in a word why a file is of no use.
func closed(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "closed to this user"
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	}
	return bare(err).Error()
}

func lookAtData(dir string) (why string, systemID uint64) {
	if _, err := readMajor(dir); err != nil {
		return "PG_VERSION is " + closed(err), 0
	}
	c, err := readControl(dir)
	if err != nil {
		return "global/pg_control is " + closed(err), 0
	}
	return "", c.SystemID
}

// lookAtWAL sees whether a sidecar could read pg_wal, and rename status files.
func lookAtWAL(dir string) string {
	dir = filepath.Join(dir, "pg_wal")
	status := filepath.Join(dir, "archive_status")
	d, err := os.Open(dir)
	if err == nil {
		_, err = d.Readdirnames(1)
		d.Close()
	}
	if err != nil {
		return dir + " is " + closed(err)
	}
	if err := unix.Access(status, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return status + " is " + closed(err)
	}
	return ""
}

// whoListens gives the user of the sidecar at a socket; -1 when there is none, or it cannot be asked.
func whoListens(path string) (uid int, why string) {
	c, err := net.DialTimeout("unix", path, probeTime)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, "there is no socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		return -1, "nobody listens"
	case errors.Is(err, fs.ErrPermission):
		return -1, "it is closed to this user"
	case err != nil:
		return -1, rootCause(err).Error()
	}
	defer c.Close()
	who, err := peerUID(c)
	if err != nil {
		return -1, err.Error()
	}
	return int(who), ""
}

// lookAtKeepDir sees whether the sidecar could write there, or make the folder.
func lookAtKeepDir(dir string) string {
	if dir == "" {
		return "not known, without a data directory"
	}
	at := dir
	if !exists(dir) {
		at = filepath.Dir(dir)
	}
	err := unix.Access(at, unix.W_OK|unix.X_OK)
	switch {
	case err == nil:
		return ""
	case at != dir:
		return fmt.Sprintf("it is not there, and this user may not make it, for %s is %s", at, closed(err))
	}
	return "it is " + closed(err)
}

// seesPostmaster says whether the server's process is one of ours to see: in another container it is not. One that does not run is not
// known to be elsewhere.
func seesPostmaster(dir string) bool {
	pid := readServerFiles(dir).postmaster.pid
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", max(pid, -pid)))
	return pid == 0 || err == nil && sameFolder(cwd, dir)
}

// lookAtClient executes the walbaton-wal that PostgreSQL here calls.
func lookAtClient(ctx context.Context, l *doctor.Local, n doctor.Node) {
	command := n.SQL.Settings["archive_command"].Value
	if command == "" {
		command = n.Sidecar.ArchiveCommand
	}
	path := doctor.ParseCommand(command).Program
	if !filepath.IsAbs(path) || filepath.Base(path) != "walbaton-wal" {
		return
	}
	if l.Apart = l.DataErr == "" && !seesPostmaster(l.DataDir); l.Apart {
		return
	}
	l.Client = path
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env, cmd.WaitDelay = []string{}, time.Second // as Patroni may call it
	out, err := cmd.Output()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.ClientErr = "it is not there"
	case errors.Is(err, fs.ErrPermission):
		l.ClientErr = "this user may not execute it"
	case err != nil:
		l.ClientErr = "it does not run: " + err.Error()
	}
	l.ClientIs = strings.TrimPrefix(strings.TrimSpace(string(out)), "walbaton-wal ")
}
