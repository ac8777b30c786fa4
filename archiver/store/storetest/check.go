package storetest

import (
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/walbaton/walbaton/archiver/store"
)

// ErrUnclear stands in tables for an error without a kind: nothing is known, and another try is worth it.
var ErrUnclear = errors.New("an error without a kind")

// Is says whether err is what a table wants: nil, ErrUnclear, or what errors.Is finds in it.
func Is(err, want error) bool {
	switch want {
	case nil:
		return err == nil
	case ErrUnclear:
		return err != nil && !IsKind(err)
	}
	return errors.Is(err, want)
}

// IsKind says whether err says something about the key or the store, rather than "not known".
func IsKind(err error) bool {
	return slices.ContainsFunc([]error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, store.ErrNoRoot},
		func(kind error) bool { return errors.Is(err, kind) })
}

// Read reads what a Get gave to its end.
func Read(r io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}
