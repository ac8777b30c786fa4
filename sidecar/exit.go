package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// The exit codes of walbaton. Those of fetch are PostgreSQL's (package walbaton-wal).
const (
	exitOK        = 0
	exitFailed    = 1   // it did not work; for fetch, withCode: proven not to be there
	exitUsage     = 2   // the command line or the configuration is wrong
	exitFound     = 3   // it worked, and what it looked at is not in order
	exitCannotSay = 200 // fetch alone: nobody knows whether the archive has the file
	exitSignal    = 143 // ended by SIGTERM or SIGINT before it was done
)

// The exit codes of doctor are those of a monitoring plugin: it never fails at looking, for what it cannot look at is one of its lines. A
// configuration that is wrong is one of them too, and so is broken, which is what exitUsage says anywhere else.
const (
	exitWarned = 1 // something could fail you
	exitBroken = 2 // something is broken
)

// codeError carries the exit code for an error.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// withCode says which code to exit with; an error that says nothing exits with 1.
func withCode(code int, err error) error { return &codeError{code, err} }

// justCode ends the program with a code where all that there is to say was said.
func justCode(code int) error { return &codeError{code: code} }

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var c *codeError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, context.Canceled):
		return exitSignal
	}
	return exitFailed
}

// fetchCode is exitCode for fetch, whatever it failed at: a wrong flag or configuration, too, tells a
// recovery in dir nothing about the archive. PostgreSQL takes 1 to 125 for the end of the
// WAL, so only a proven absence may exit with 1 there (DESIGN section 8). PostgreSQL runs
// restore_command in its data directory; for pg_rewind there is no signal file.
func fetchCode(err error, dir string) int {
	var c *codeError
	code := exitCode(err)
	switch {
	case code == exitOK, code == exitSignal, code == exitCannotSay:
		return code
	case code == exitFailed && errors.As(err, &c):
		return code // said by name
	case exists(filepath.Join(dir, "recovery.signal")) && !exists(filepath.Join(dir, "standby.signal")):
		return exitCannotSay
	}
	return exitFailed
}

// hintError adds what to type next. Only the program has hints; libraries say what happened and why.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func withHint(err error, hint string) error { return &hintError{err, hint} }

// explainError is what the user reads: one line that says what happened and why, and below it what
// to type next.
func explainError(err error) string {
	var c *codeError
	if errors.As(err, &c) && c.err == nil {
		return ""
	}
	s := "walbaton: " + err.Error() + "\n"
	var h *hintError
	if errors.As(err, &h) {
		s += "  " + strings.ReplaceAll(h.hint, "\n", "\n  ") + "\n"
	}
	return s
}

// explainLine is explainError on one line, for a program that PostgreSQL calls: its log shows that line.
func explainLine(err error) string {
	return strings.Join(strings.Fields(strings.Replace(strings.TrimSuffix(explainError(err), "\n"), "\n", ";", 1)), " ") + "\n"
}

// bare leaves out of an error of the system which call it was, and what its message says twice: a file stays with its
// name, an address without.
func bare(err error) error {
	var file *fs.PathError
	var op *net.OpError
	var call *os.SyscallError
	switch {
	case errors.As(err, &file):
		return fmt.Errorf("%s: %w", file.Path, bare(file.Err))
	case errors.As(err, &call):
		return call.Err
	case errors.As(err, &op):
		return bare(op.Err)
	}
	return err
}

// configError is an error at a place in the configuration: a key, a flag, file:line, or "".
func configError(place, format string, args ...any) error {
	if place != "" {
		place += ": "
	}
	return withCode(exitUsage, fmt.Errorf("read configuration: %s%w", place, fmt.Errorf(format, args...)))
}
