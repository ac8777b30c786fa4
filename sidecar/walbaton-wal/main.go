package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
)

const defaultSocket = "/run/walbaton/walbaton.sock"

const help = `walbaton-wal moves one WAL file between PostgreSQL and the walbaton sidecar.

Usage:
  walbaton-wal push [--socket PATH] %p         for archive_command
  walbaton-wal fetch [--socket PATH] %f %p     for restore_command
  walbaton-wal cleanup [--socket PATH] %r      for archive_cleanup_command
  walbaton-wal install DIR                     copy this program, and walbaton if it
                                               lies beside it, into a folder
  walbaton-wal version

postgresql.conf:
  archive_command = 'walbaton-wal push %p'
  restore_command = 'walbaton-wal fetch %f %p'

The socket is ` + defaultSocket + ` unless --socket or WALBATON_SOCKET names
another one. fetch also takes --config, --patroni-config and --archive: where no
sidecar runs it executes "walbaton fetch" with them.

Exit codes:
  push   0 stored, 1 not stored yet (PostgreSQL tries again)
  fetch  0 restored, 1 not in the archive, 200 cannot say (recovery stops, and
         can be resumed)
  cleanup  0, unless it is called wrongly: 1
  install  0 copied, 1 not
`

func main() {
	quitQuietly()
	os.Exit(run(os.Args[1:]))
}

// quitQuietly makes SIGQUIT end us like SIGTERM. PostgreSQL sends it to what its archiver and its recovery run, when it crashes or
// stops at once. The Go runtime would write what every goroutine does into PostgreSQL's log, a hundred lines, and exit with
// 2, which a recovery takes for the end of the WAL.
func quitQuietly() {
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	go func() {
		<-quit
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
}

// run does what the words of the command line say, and gives the exit code.
func run(args []string) int {
	verb := ""
	if len(args) > 0 {
		verb = args[0]
		args = args[1:]
	}
	switch verb {
	case "push":
		return push(args)
	case "fetch":
		return fetch(args)
	case "cleanup":
		return cleanup(args)
	case "install":
		return install(args)
	case "version", "--version":
		print(os.Stdout, "walbaton-wal "+version()+"\n")
		return 0
	case "help", "--help", "-h":
		print(os.Stdout, help)
		return 0
	case "":
		print(os.Stderr, help)
		return 1
	}
	complain("unknown command " + strconv.Quote(verb) + `: use "push %p", "fetch %f %p" or "cleanup %r"`)
	return 1
}

func push(args []string) int {
	a, err := parse(args)
	if err == "" && (len(a.words) != 1 || a.words[0] == "") {
		err = "push takes one path"
	}
	if err != "" {
		complain(err + `: use archive_command = 'walbaton-wal push %p'`)
		return 1
	}
	path := a.words[0]
	got, err := ask(a.socket, "push", path)
	if err != "" {
		complain("push " + path + ": " + err + ": start \"walbaton sidecar\" as the user that runs PostgreSQL, or name its socket with --socket or WALBATON_SOCKET")
		return 1
	}
	complain(got.message)
	if got.code == 0 {
		return 0
	}
	return 1 // never what the sidecar made of it: above 125 PostgreSQL's archiver would die
}

func fetch(args []string) int {
	a, err := parse(args)
	if err == "" && (len(a.words) != 2 || a.words[0] == "" || a.words[1] == "") {
		err = "fetch takes a name and a path"
	}
	if err != "" {
		complain(err + `: use restore_command = 'walbaton-wal fetch %f %p'`)
		return cannotSay()
	}
	got, err := ask(a.socket, "fetch", a.words...)
	if err == "" && got.code >= 0 && got.code <= 255 {
		complain(got.message)
		return got.code
	}
	// The sidecar may be alive and unable to answer; then its reason is worth a line.
	complain(got.message)
	why := become("walbaton", append([]string{"walbaton", "fetch"}, append(a.passed, a.words...)...))
	if err == "" {
		err = "the sidecar cannot answer"
	}
	code := cannotSay()
	complain("fetch " + a.words[0] + ": " + err + ", and walbaton cannot be executed (" + why + "), so nobody knows whether the archive has it: " +
		"start \"walbaton sidecar\", or install walbaton beside walbaton-wal")
	return code
}

// cleanup tells the sidecar this node's restart point. PostgreSQL goes on whatever comes of it: what is not told keeps WAL in the archive.
func cleanup(args []string) int {
	a, err := parse(args)
	if err == "" && (len(a.words) != 1 || a.words[0] == "") {
		err = "cleanup takes one segment"
	}
	if err != "" {
		complain(err + `: use archive_cleanup_command = 'walbaton-wal cleanup %r'`)
		return 1
	}
	got, err := ask(a.socket, "cleanup", a.words...)
	if err != "" {
		complain("cleanup " + a.words[0] + ": the restart point was not told: " + err)
		return 0
	}
	complain(got.message)
	if got.code > 0 {
		return 1
	}
	return 0
}

// cannotSay is the exit code for "nobody knows whether the archive has this file". PostgreSQL
// runs restore_command in its data directory.
func cannotSay() int {
	if exists("recovery.signal") && !exists("standby.signal") {
		return 200
	}
	return 1
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// arguments are the words after the verb.
type arguments struct {
	socket string
	passed []string // flags for walbaton fetch
	words  []string
}

// parse takes flags before the words, and `--` between them. The second result says what is
// wrong, "" when nothing is.
func parse(args []string) (arguments, string) {
	a := arguments{socket: os.Getenv("WALBATON_SOCKET")}
	if a.socket == "" {
		a.socket = defaultSocket
	}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		name, value, given := cut(args[0])
		args = args[1:]
		switch name {
		case "--":
			a.words = args
			return a, ""
		case "--socket", "--config", "--patroni-config", "--archive":
		default:
			return a, "unknown flag " + name
		}
		if !given && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if value == "" {
			return a, name + " needs a value"
		}
		if name == "--socket" {
			a.socket = value
		} else {
			a.passed = append(a.passed, name, value)
		}
	}
	a.words = args
	return a, ""
}

// cut splits --flag=value.
func cut(s string) (name, value string, given bool) {
	for i := range len(s) {
		if s[i] == '=' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// complain writes one line for PostgreSQL's log, unless there is nothing to say.
func complain(message string) {
	if message != "" {
		print(os.Stderr, "walbaton-wal: "+message+"\n")
	}
}

func print(f *os.File, s string) {
	_, _ = f.WriteString(s) // nobody is left to tell
}

// release is the version where the build has no git to ask: the linker writes it (-X main.release=v1.2.3).
var release string

func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
