package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// said is an error in one clause, without what a library calls the request.
func said(err error) string {
	var u *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + probeTime.String()
	case errors.As(err, &u):
		return strings.TrimPrefix(strings.TrimPrefix(u.URL, "http://"), "https://") + ": " + rootCause(u.Err).Error()
	}
	return err.Error()
}

// sqlReason is why a server could not be asked.
func sqlReason(err error) string {
	var pg *pgconn.PgError
	var op *net.OpError
	switch {
	case errors.As(err, &pg):
		return pg.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + probeTime.String()
	case errors.As(err, &op):
		return bare(op).Error()
	}
	return err.Error()
}

// baseOf is a URL without its path.
func baseOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "", errors.New("no address")
	}
	return u.Scheme + "://" + u.Host, nil
}
