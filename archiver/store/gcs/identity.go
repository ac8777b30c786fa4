package gcs

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"

	"github.com/walbaton/walbaton/archiver/store/remote"
)

// scope is the least that reads, writes, lists and deletes objects, and reads a bucket's properties: what IAM allows decides.
const scope = "https://www.googleapis.com/auth/devstorage.read_write"

// tokenTime bounds a request for a token.
const tokenTime = 30 * time.Second

// identity signs requests with a token. It is an http.RoundTripper.
type identity struct {
	base   http.RoundTripper
	detect func() (*auth.Credentials, error)

	mu    sync.Mutex
	creds *auth.Credentials // nil until the first request, and after a token was refused
}

// newIdentity reads a file at once, so that a wrong one is an error of the configuration. The default credentials are
// looked for later, since that may ask the metadata server.
func newIdentity(file string, base *http.Transport) (*identity, error) {
	o := &credentials.DetectOptions{Scopes: []string{scope}, Client: &http.Client{Transport: base, Timeout: tokenTime}}
	i := &identity{base: base, detect: func() (*auth.Credentials, error) { return credentials.DetectDefault(o) }}
	if file == "" {
		return i, nil
	}
	i.detect = func() (*auth.Credentials, error) {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("credentials_file: %w", err)
		}
		fromFile := *o
		//lint:ignore SA1019 whoever configures walbaton chooses the kind of credentials; there is no stranger's file to fear
		fromFile.CredentialsJSON = content
		creds, err := credentials.DetectDefault(&fromFile)
		if err != nil {
			return nil, fmt.Errorf("credentials_file %s: it holds no credentials of a kind that Google's tools write", file) // err may show what is in it
		}
		return creds, nil
	}
	var err error
	i.creds, err = i.detect()
	return i, err
}

// RoundTrip implements http.RoundTripper.
func (i *identity) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := i.token(r.Context())
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, remote.Certain{Err: tokenError{err}}
	}
	signed := r.Clone(r.Context())
	signed.Header.Set("Authorization", "Bearer "+token.Value)
	return i.base.RoundTrip(signed)
}

// token waits for one no longer than ctx lasts. What looks for credentials takes no context, so it may go on
// for a while in its goroutine; its own timeouts end it.
func (i *identity) token(ctx context.Context) (*auth.Token, error) {
	type answer struct {
		token *auth.Token
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		token, err := i.ask(context.WithoutCancel(ctx))
		done <- answer{token, err}
	}()
	select {
	case a := <-done:
		return a.token, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask gives the token at hand, or gets a new one. After a failure the credentials are read anew: a file may have been exchanged.
func (i *identity) ask(ctx context.Context) (*auth.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.creds == nil {
		creds, err := i.detect()
		if err != nil {
			return nil, err
		}
		i.creds = creds
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	token, err := i.creds.Token(ctx)
	if err != nil {
		i.creds = nil
	}
	return token, err
}

// tokenError is a request that was not made for lack of a token.
type tokenError struct{ err error }

func (e tokenError) Error() string { return "no token: " + e.err.Error() }
func (e tokenError) Unwrap() error { return e.err }
