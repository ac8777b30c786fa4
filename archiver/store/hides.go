package store

import (
	"context"
	"fmt"
)

// Hider is the second interface of a driver whose store may keep what Delete has deleted: a bucket with
// versions, an object lock, or a bin.
type Hider interface {
	// Hides says whether the store only hides what is deleted. fs.ErrPermission: we may not ask, so it is not known.
	Hides(ctx context.Context) (bool, error)
}

// Hides says whether s keeps what is deleted, out of sight and for as long as its owner has told it to: then a Delete
// frees no space by itself. An error means that it is not known; fs.ErrPermission, that we may not ask.
//
// The answer is that of the driver below the decorators of this package. One that is no [Hider] keeps nothing.
func Hides(ctx context.Context, s Store) (bool, error) {
	h, ok := below[Hider](s)
	if !ok {
		return false, nil
	}
	var hides bool
	err := Retry(s, Backoff{}).(*retry).do(ctx, "hides", func() (err error) { // below the decorators nobody tries again
		hides, err = h.Hides(ctx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask %s whether it keeps what is deleted: %w", s, err)
	}
	return hides, nil
}

// below finds the first store that is a T, of s and what its decorators stand around. It is the only place
// that asks a store for more than Store.
func below[T any](s Store) (T, bool) {
	for {
		if t, ok := s.(T); ok {
			return t, true
		}
		u, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return *new(T), false
		}
		s = u.Unwrap()
	}
}
