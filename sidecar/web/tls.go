package web

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is a pair of files, read again when one of them has changed: who renews certificates need not restart a sidecar.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	stamp  [2]time.Time // of the files that pair was read from
	looked time.Time
	failed string // of the last try, so that it is logged once
}

func readCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	if err := c.read(c.stamps()); err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key %s: %w", cert, key, err)
	}
	return c, nil
}

// stamps are the times at which the files were changed; zero for one that cannot be looked at.
func (c *certificate) stamps() (at [2]time.Time) {
	for i, name := range []string{c.cert, c.key} {
		if info, err := os.Stat(name); err == nil { // through links, which is how Kubernetes changes a Secret's files
			at[i] = info.ModTime()
		}
	}
	return at
}

func (c *certificate) read(stamp [2]time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.pair, c.stamp = &pair, stamp
	return nil
}

// get gives the certificate for a handshake. It looks at the files at most once a second, and stays with what it has while they do not fit each
// other: one is written before the other.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < time.Second {
		return c.pair, nil
	}
	c.looked = time.Now()
	stamp := c.stamps()
	if stamp == c.stamp {
		return c.pair, nil
	}
	switch err := c.read(stamp); {
	case err == nil:
		c.failed = ""
		c.log.Info("the certificate was read again", "cert", c.cert, "until", c.pair.Leaf.NotAfter)
	case err.Error() != c.failed:
		c.failed = err.Error()
		c.log.Warn("a changed certificate is not used", "cert", c.cert, "key", c.key, "error", err)
	}
	return c.pair, nil
}
