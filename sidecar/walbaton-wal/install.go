package main

import (
	"io"
	"os"
)

// install copies the programs that lie beside this one into a folder: walbaton-wal and, where it is there, walbaton. It is for a volume that
// containers share, out of an image that has no cp. Each is whole under its name or not there, also when the folder is in use or the power
// fails; walbaton-wal comes last, so that who finds it finds all.
func install(args []string) int {
	if len(args) != 1 || args[0] == "" || args[0][0] == '-' {
		complain("install takes one folder: use walbaton-wal install /shared/folder")
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		complain("install: " + err.Error())
		return 1
	}
	from, to := self[:lastSlash(self)+1], args[0]+"/"
	for _, name := range []string{"walbaton", "walbaton-wal"} {
		if name == "walbaton" && !exists(from+name) {
			continue // the small image has none
		}
		if err := copyProgram(from+name, to+name); err != nil {
			complain("install " + to + name + ": " + err.Error())
			return 1
		}
	}
	return 0
}

// copyProgram puts a copy of the file from at to, durably, in one step.
func copyProgram(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dir := to[:lastSlash(to)]
	tmp, err := os.CreateTemp(dir, ".walbaton-")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, src)
	for _, step := range []func() error{
		func() error { return tmp.Chmod(0o755) }, // PostgreSQL may run as another user
		tmp.Sync,
		func() error { return os.Rename(tmp.Name(), to) },
		func() error { return syncFolder(dir) },
	} {
		if err == nil {
			err = step()
		}
	}
	tmp.Close()
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
