package remote

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/walbaton/walbaton/archiver/store"
)

// Get is what Store.Get has in common behind HTTP: it refuses what no store has, and answers an empty range, which HTTP has not, by Head.
// For anything else it is get.
func Get(ctx context.Context, s store.Store, key string, from, n int64, get func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if err := store.CheckRange(from); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if n == 0 {
		if _, err := s.Head(ctx, key); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	return get()
}
