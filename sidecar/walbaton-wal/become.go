package main

import (
	"os"
	"syscall"
)

// become replaces this process by the program of that name, found beside our own executable
// or else in PATH. It returns only when that is not possible, and says why.
func become(name string, args []string) (why string) {
	why = name + " is neither beside walbaton-wal nor in PATH"
	for _, path := range candidates(name) {
		if !exists(path) {
			continue
		}
		if err := syscall.Exec(path, args, os.Environ()); err != nil {
			why = path + ": " + err.Error()
		}
	}
	return why
}

// candidates lists where the program may be. An empty field of PATH means the working directory
// to a shell; here it is left out, since that is PostgreSQL's data directory.
func candidates(name string) []string {
	var paths []string
	if self, err := os.Executable(); err == nil {
		paths = append(paths, self[:lastSlash(self)+1]+name)
	}
	path := os.Getenv("PATH")
	for start, i := 0, 0; i <= len(path); i++ {
		if i < len(path) && path[i] != ':' {
			continue
		}
		if dir := path[start:i]; dir != "" && dir[0] == '/' {
			paths = append(paths, dir+"/"+name)
		}
		start = i + 1
	}
	return paths
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}
