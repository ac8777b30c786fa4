package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
)

// Right is one kind of request that a store may permit or refuse.
type Right string

// The rights. Miss is to be told that a key is not there, which some stores tell only those who may list.
const (
	Put    Right = "put"
	Get    Right = "get"
	Head   Right = "head"
	List   Right = "list"
	Delete Right = "delete"
	Miss   Right = "miss"
)

// Restores is what restore hosts need: fetch, list, verify, status.
func Restores() []Right { return []Right{Get, Head, List, Miss} }

// Ships is what sidecars need. One that may not delete leaves its probes behind, which harm nothing.
func Ships() []Right { return append(Restores(), Put) }

// Expires is what those need who delete: expire, and the sidecars of a cluster with a retention.
func Expires() []Right { return append(Ships(), Delete) }

// Permissions holds a store that was opened with few rights to them: what is in may works, and each other request is
// fs.ErrPermission and changes nothing. full is the same place, with all rights. It returns what the refused requests said.
func Permissions(t *testing.T, full, s store.Store, may []Right) map[Right]error {
	t.Helper()
	ctx := t.Context()
	// A folder that is there, a new one, and keys that no earlier call has used.
	dir := fmt.Sprintf("permissions/%d/", rand.Uint64())
	there, want := dir+"there", []byte("what full has put")
	put(t, full, there, want)

	refused := make(map[Right]error)
	for _, right := range Expires() {
		err := ask(ctx, s, right, dir, want)
		switch allowed := slices.Contains(may, right); {
		case allowed && err != nil:
			t.Errorf("%s, which is permitted: got %v", right, err)
		case !allowed && !errors.Is(err, fs.ErrPermission):
			t.Errorf("%s, which is not permitted: got %v, want fs.ErrPermission", right, err)
		case !allowed:
			refused[right] = err
		}
	}
	if !slices.Contains(may, Delete) {
		wantContent(t, full, there, want)
	}
	if !slices.Contains(may, Put) {
		wantAbsent(t, full, dir+"new/key")
	}
	return refused
}

// ask makes one request. Its error says what was wrong with the answer, too.
func ask(ctx context.Context, s store.Store, right Right, dir string, want []byte) error {
	there := dir + "there"
	switch right {
	case Get:
		r, err := s.Get(ctx, there, 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			return errors.Join(fmt.Errorf("got %q, want %q", got, want), err)
		}
	case Head:
		if info, err := s.Head(ctx, there); err != nil || info.Size != int64(len(want)) {
			return errors.Join(err, sized(info, want, err))
		}
	case List:
		var keys []string
		for info, err := range s.List(ctx, dir, "") {
			if err != nil {
				return err
			}
			keys = append(keys, info.Key)
		}
		if !slices.Contains(keys, there) {
			return fmt.Errorf("got keys %q, want %s among them", keys, there)
		}
	case Miss:
		_, err := s.Head(ctx, dir+"absent")
		if _, getErr := s.Get(ctx, dir+"absent", 0, 10); !errors.Is(err, fs.ErrNotExist) || !errors.Is(getErr, fs.ErrNotExist) {
			return errors.Join(errors.New("an absent key"), err, onlyOther(getErr))
		}
	case Put:
		if err := s.Put(ctx, dir+"new/key", bytes.NewReader(want)); err != nil {
			return err
		}
		if err := s.Put(ctx, dir+"new/key", bytes.NewReader(want)); !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("second put: got %w, want fs.ErrExist", err)
		}
	case Delete:
		return s.Delete(ctx, there)
	}
	return nil
}

func sized(info store.Info, want []byte, err error) error {
	if err != nil {
		return nil
	}
	return fmt.Errorf("got %d bytes, want %d", info.Size, len(want))
}

// onlyOther is err, unless it is what was wanted.
func onlyOther(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
