package main

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

// silence is how long the sidecar may say nothing before it counts as not running.
const silence = 5 * time.Second

// maxSocketPath is sun_path without its last byte, 0 (unix(7)).
const maxSocketPath = 107

// maxAnswer bounds an answer in bytes.
const maxAnswer = 64 << 10

// answer is the sidecar's last line.
type answer struct {
	code    int
	message string
}

// ask sends one request and waits for the answer, as long as the sidecar shows that it lives.
// The second result says why there is no answer, "" when there is one.
//
// It uses the socket calls themselves: package net would add half a megabyte to the program,
// and its poller to every start.
func ask(socket, verb string, words ...string) (answer, string) {
	if len(socket) > maxSocketPath {
		return answer{}, "the socket " + socket + " has a longer path than sockets may have (" + strconv.Itoa(maxSocketPath) + " bytes)"
	}
	fd, err := dial(socket)
	switch {
	case err == syscall.EACCES:
		return answer{}, "this user may not use the socket " + socket + " (permission denied)"
	case err != nil:
		return answer{}, "no sidecar answers on " + socket + " (" + err.Error() + ")"
	}
	defer syscall.Close(fd)
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // gone; an absolute path does not need it
	}
	line := strconv.Quote("walbaton/1") + " " + strconv.Quote(verb)
	for _, w := range append(words[:len(words):len(words)], cwd) {
		line += " " + strconv.Quote(w)
	}
	sent := send(fd, line+"\n") // a sidecar that refuses us answers, and does not read
	reply, why := receive(fd)
	switch {
	case why != "" && sent != nil:
		return answer{}, "the sidecar on " + socket + " does not listen (" + sent.Error() + ")"
	case why != "":
		return answer{}, "the sidecar on " + socket + " " + why
	}
	a, ok := parseAnswer(reply)
	if !ok {
		return answer{}, "the sidecar on " + socket + " answered " + strconv.Quote(reply) + ", which this version does not understand"
	}
	return a, ""
}

// dial connects, with the deadline for silence on every later call.
func dial(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := syscall.NsecToTimeval(silence.Nanoseconds())
	for _, option := range []int{syscall.SO_SNDTIMEO, syscall.SO_RCVTIMEO} {
		if err == nil {
			err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &limit)
		}
	}
	if err == nil {
		err = again(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}) })
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func send(fd int, s string) error {
	for b := []byte(s); len(b) > 0; {
		n := 0
		err := again(func() (err error) { n, err = syscall.Write(fd, b); return err })
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// receive reads up to the end of the answer's line; the dots before it are left out.
func receive(fd int) (reply, why string) {
	buf := make([]byte, 4096)
	var got []byte
	for {
		n := 0
		err := again(func() (err error) { n, err = syscall.Read(fd, buf); return err })
		switch {
		case err == syscall.EAGAIN:
			return "", "has been silent for " + silence.String()
		case err != nil:
			return "", "hung up (" + err.Error() + ")"
		case n <= 0:
			return "", "hung up without an answer"
		}
		for _, c := range buf[:n] {
			switch {
			case c == '\n':
				return string(got), ""
			case c == '.' && len(got) == 0:
			default:
				got = append(got, c)
			}
		}
		if len(got) > maxAnswer {
			return "", "answers without end"
		}
	}
}

func parseAnswer(s string) (answer, bool) {
	for i := range len(s) {
		if s[i] == ' ' {
			code, err := strconv.Atoi(s[:i])
			message, err2 := strconv.Unquote(s[i+1:])
			return answer{code, message}, err == nil && err2 == nil
		}
	}
	return answer{}, false
}

// again repeats a system call that a signal interrupted: with a timeout on the socket the kernel
// does not (signal(7)). The Go runtime sends signals to itself, but rarely to a program that waits.
func again(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}
