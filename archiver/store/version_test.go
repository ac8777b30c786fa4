package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

// versions is a store whose reads break off after some bytes, and of which each Get finds the next version.
type versions struct {
	*mem.Store
	of    []string // "" is not known
	after int64    // bytes
	gets  int
}

func (v *versions) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	r, err := v.Store.Get(ctx, key, from, n)
	if err != nil {
		return nil, err
	}
	version := v.of[min(v.gets, len(v.of)-1)]
	v.gets++
	if v.gets > len(v.of)-1 {
		return &versionReader{r, r, version}, nil
	}
	return &versionReader{r, io.MultiReader(io.LimitReader(r, v.after), resets{}), version}, nil
}

type versionReader struct {
	io.Closer
	io.Reader
	version string
}

func (r *versionReader) Version() string { return r.version }

type resets struct{}

func (resets) Read([]byte) (int, error) { return 0, errors.New("reset") }

// A read goes on with the object that it began with, through all decorators. Before its first byte any object will do.
func TestVersions(t *testing.T) {
	data := strings.Repeat("0123456789", 100)
	for _, test := range []struct {
		of    []string
		after int64
		want  error
	}{
		{[]string{"a", "a", "a"}, 300, nil},
		{[]string{"a", "b"}, 300, store.ErrReplaced},
		{[]string{"a", "a", "b"}, 300, store.ErrReplaced},
		{[]string{"a", "b"}, 0, nil},
		{[]string{"", ""}, 300, nil},
		{[]string{"a", ""}, 300, nil},
	} {
		t.Run(fmt.Sprint(test.of, test.after), func(t *testing.T) {
			driver := &versions{Store: mem.New("versions"), of: test.of, after: test.after}
			if err := driver.Put(t.Context(), "key", strings.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			limited := store.Limit(driver, store.NewBandwidth(1<<30))
			s := store.Retry(store.Meter(store.Stall(limited, time.Minute), store.NewMetrics(nil)), store.Backoff{First: time.Microsecond})
			r, err := s.Get(t.Context(), "key", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if !errors.Is(err, test.want) || err == nil && !bytes.Equal(got, []byte(data)) {
				t.Errorf("got %d bytes and %v, want %v", len(got), err, test.want)
			}
			if test.want != nil && driver.gets != len(test.of) {
				t.Errorf("%d requests, want no further ones after %d", driver.gets, len(test.of))
			}
		})
	}
}
