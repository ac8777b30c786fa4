package queue

import (
	"encoding/binary"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Where the fields of struct linux_dirent64 are (getdents64(2)). The name ends with a NUL.
const (
	direntLength = 16 // uint16
	direntType   = 18 // uint8
	direntName   = 19
)

// eachRegular calls yield with the name of every regular file in a folder, and holds 32 KiB of the folder at
// a time. os.File.ReadDir would ask for the status of every single file here: for folders that were opened
// through an os.Root it does not use the type that the kernel gives with the name (os, newUnixDirent).
func eachRegular(root *os.Root, dir string, yield func(base string)) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	conn, err := d.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		var n int
		if e := conn.Control(func(fd uintptr) { n, err = unix.ReadDirent(int(fd), buf) }); e != nil {
			return e
		}
		if err != nil {
			return &fs.PathError{Op: "getdents64", Path: d.Name(), Err: err}
		}
		if n == 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > 0; {
			length := binary.NativeEndian.Uint16(rest[direntLength:])
			entry := rest[:length]
			rest = rest[length:]
			base := unix.ByteSliceToString(entry[direntName:])
			if regular(root, dir, base, entry[direntType]) {
				yield(base)
			}
		}
	}
}

// regular trusts the kernel's type, and looks itself where the file system does not tell it.
func regular(root *os.Root, dir, base string, kind byte) bool {
	if kind != unix.DT_UNKNOWN {
		return kind == unix.DT_REG
	}
	info, err := root.Lstat(dir + "/" + base)
	return err == nil && info.Mode().IsRegular()
}
