package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

const (
	// maxSessions is how many requests are under way at a time; OpenSSH's MaxSessions is 10 unless it is told otherwise.
	maxSessions = 8
	// graceTime is what a request has left, after its context has ended, to end tidily.
	graceTime = 2 * time.Second
)

// session is one SFTP session of the shared connection, in the hands of one request.
type session struct {
	*sftp.Client
	openSSH bool // whose server it is
	abort   func()
}

// do runs f with a session of its own. Once ctx has ended, f gets graceTime; then its session is cut, and what waits for
// the server returns at once, while the other requests on the connection go on.
func (p *pool) do(ctx context.Context, f func(*session) error) error {
	l, ses, err := p.take(ctx)
	if err != nil {
		return err
	}
	var timer *time.Timer
	armed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		timer = time.AfterFunc(graceTime, ses.abort)
		close(armed)
	})
	err = f(ses)
	if !stop() {
		<-armed
		timer.Stop()
	}
	l.giveBack(ses, answered(err))
	return err
}

// answered says whether an error is one that the server gave as its answer, so that the session goes on.
func answered(err error) bool {
	return err == nil || errors.As(err, new(*sftp.StatusError)) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// take returns a session of the connection, which it makes if there is none.
func (p *pool) take(ctx context.Context) (*line, *session, error) {
	l, err := p.line(ctx)
	if err != nil {
		return nil, nil, err
	}
	for {
		select {
		case <-ctx.Done():
			l.leave()
			return nil, nil, context.Cause(ctx)
		case <-l.gone:
			l.leave()
			return nil, nil, l.lost()
		case l.slots <- struct{}{}:
		}
		if ses := l.popIdle(); ses != nil {
			return l, ses, nil
		}
		ses, err := l.open(ctx)
		if errors.Is(err, errFull) {
			continue // its slot is gone with it: the server allows fewer sessions
		}
		if err != nil {
			l.leave()
			return nil, nil, err
		}
		return l, ses, nil
	}
}

// errFull says that the server allows no session besides those that are open.
var errFull = errors.New("no more sessions")

// popIdle returns a session that is open and not used, or nil.
func (l *line) popIdle() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) == 0 {
		return nil
	}
	last := len(l.idle) - 1
	ses := l.idle[last]
	l.idle = l.idle[:last]
	return ses
}

// giveBack ends a request: its session is for others, if it is good.
func (l *line) giveBack(ses *session, good bool) {
	if !good {
		ses.abort()
	}
	l.mu.Lock()
	if good {
		l.idle = append(l.idle, ses)
	} else {
		l.sessions--
	}
	l.mu.Unlock()
	<-l.slots
	l.leave()
}

// open opens a session, in a goroutine that the caller need not wait for: it ends with the server's answer, or with the
// connection. On success the caller has a slot; after errFull nobody has it; after any other error it is free.
func (l *line) open(ctx context.Context) (*session, error) {
	type result struct {
		ses *session
		err error
	}
	l.mu.Lock()
	l.sessions++
	l.mu.Unlock()
	done := make(chan result)
	go func() {
		ses, err := l.newSession()
		var refused *ssh.OpenChannelError
		l.mu.Lock()
		if err != nil {
			l.sessions--
		}
		full := errors.As(err, &refused) && l.sessions > 0
		l.mu.Unlock()
		if full {
			err = errFull
		}
		select {
		case done <- result{ses, err}:
			if err != nil && !full {
				<-l.slots
			}
			return
		case <-ctx.Done():
		}
		if err == nil {
			l.mu.Lock()
			l.idle = append(l.idle, ses)
			l.mu.Unlock()
		}
		if !full {
			<-l.slots
		}
	}()
	select {
	case r := <-done:
		return r.ses, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// newSession opens a channel and speaks SFTP through two pipes, which can be cut without a word to the server. What
// it starts ends with the channel, or with the connection.
func (l *line) newSession() (*session, error) {
	channel, err := l.client.NewSession()
	if err != nil {
		return nil, err
	}
	in, err1 := channel.StdinPipe()
	out, err2 := channel.StdoutPipe()
	noise, err3 := channel.StderrPipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if err := channel.RequestSubsystem("sftp"); err != nil {
		_ = channel.Close()
		return nil, fmt.Errorf("the server offers this account no SFTP: %w", err)
	}
	fromClient, toServer := io.Pipe()
	fromServer, toClient := io.Pipe()
	go func() {
		_, err := io.Copy(in, fromClient)
		_ = fromClient.CloseWithError(err) // a writer must not wait for us
		_ = channel.Close()
	}()
	go func() {
		_, err := io.Copy(toClient, out)
		toClient.CloseWithError(err)
	}()
	go func() { _, _ = io.Copy(io.Discard, noise) }()
	client, err := sftp.NewClientPipe(fromServer, toServer)
	if err != nil {
		_ = toServer.Close()
		_ = fromServer.Close()
		return nil, fmt.Errorf("begin SFTP: %w", err)
	}
	return &session{
		Client:  client,
		openSSH: strings.Contains(string(l.client.ServerVersion()), "OpenSSH"),
		abort: func() {
			_ = fromServer.Close()
			_ = toServer.Close()
		},
	}, nil
}
