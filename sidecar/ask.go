package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// socketSilence is how long a sidecar may say nothing before it counts as not running.
const socketSilence = 5 * socketBeat

// maxReply bounds an answer in bytes: one file and the members of a cluster make a few thousand.
const maxReply = 4 << 20

const noSidecarHint = "ask on a node where a sidecar runs, as the user that runs PostgreSQL or as root; --socket names its socket"

// noSidecarError says that nobody listens on the socket.
type noSidecarError struct{ error }

func (e *noSidecarError) Unwrap() error { return e.error }

// askSidecar asks the local sidecar one thing over its socket, and gives the message of the answer. A
// code other than 0 is an error that carries it.
func askSidecar(ctx context.Context, socket string, words ...string) (string, error) {
	c, err := (&net.Dialer{Timeout: socketSilence}).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", withHint(&noSidecarError{fmt.Errorf("ask the sidecar: no sidecar answers on %s: %w", socket, rootCause(err))}, noSidecarHint)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	line := strconv.Quote("walbaton/1")
	for _, w := range words {
		line += " " + strconv.Quote(w)
	}
	_ = c.SetDeadline(time.Now().Add(socketSilence)) // fails only on a closed connection, and so does the write
	_, sent := io.WriteString(c, line+"\n")          // a sidecar that refuses us answers, and does not read
	got, err := readAnswer(bufio.NewReader(io.LimitReader(c, maxReply)), func() { _ = c.SetDeadline(time.Now().Add(socketSilence)) })
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		if sent != nil {
			err = sent
		}
		return "", withHint(fmt.Errorf("ask the sidecar on %s: %w", socket, rootCause(err)), "see whether it runs, and what its log says")
	case got.Code != exitOK:
		return "", withCode(max(got.Code, exitFailed), errors.New(got.Message))
	}
	return got.Message, nil
}

// readAnswer reads dots, each of which shows that the sidecar lives, and then the answer's line.
func readAnswer(r *bufio.Reader, lives func()) (Answer, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return Answer{}, err
		}
		if b != '.' {
			break
		}
		lives()
	}
	if err := r.UnreadByte(); err != nil {
		return Answer{}, err
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return Answer{}, err
	}
	digits, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	code, err := strconv.Atoi(digits)
	message, err2 := strconv.Unquote(quoted)
	if err != nil || err2 != nil {
		return Answer{}, fmt.Errorf("it answered %.80q, which this version does not understand", line)
	}
	return Answer{code, message}, nil
}

// rootCause leaves out what package net says of addresses, which the message names already.
func rootCause(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it hung up without an answer")
	case errors.As(err, &op) && op.Timeout():
		return fmt.Errorf("it was silent for %v", socketSilence)
	case errors.As(err, &op):
		return bare(op)
	}
	return err
}
