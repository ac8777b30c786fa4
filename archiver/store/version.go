package store

import (
	"errors"
	"io"
)

// ErrReplaced ends a read whose object was deleted and written anew in the middle of it.
var ErrReplaced = errors.New("object was replaced while it was read")

// Versioned is the second interface of the reader that a driver's Get returns, where the store gives names to what is written: another
// object under the same key has another version. Retry goes on reading only with the one it began with.
type Versioned interface {
	Version() string
}

// versionOf asks the driver's reader below those of this package's decorators. "" means that it is not known.
func versionOf(r io.Reader) string {
	for {
		if v, ok := r.(Versioned); ok {
			return v.Version()
		}
		u, ok := r.(interface{ below() io.Reader })
		if !ok {
			return ""
		}
		r = u.below()
	}
}

func (r *watchedReader) below() io.Reader { return r.r }
func (r *meteredReader) below() io.Reader { return r.ReadCloser }
func (r *limitedReader) below() io.Reader { return r.ReadCloser }
