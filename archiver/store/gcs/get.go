package gcs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/storage/v1"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	return remote.Get(ctx, s, key, from, n, func() (io.ReadCloser, error) {
		for range 3 {
			r, err := s.open(ctx, key, from, n)
			if err == nil {
				return r, nil
			}
			if status(err) == http.StatusNotFound {
				if err = s.absent(ctx, key, err); err == nil {
					continue // it has just appeared
				}
			}
			return nil, s.fail(ctx, "get", key, err)
		}
		return nil, fmt.Errorf("get %s: the bucket lists it and does not give it", key)
	})
}

// open is Get with the library's errors.
func (s *Store) open(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	call := s.api.Objects.Get(s.bucket, s.prefix+key).Context(ctx)
	ranged := from > 0 || n > 0
	if ranged {
		call.Header().Set("Range", remote.Range(from, n))
	}
	answer, err := call.Download()
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), nil // it begins at the end of the object or later
	}
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, s: s, key: key, body: answer.Body, version: answer.Header.Get("X-Goog-Generation")}
	if !ranged {
		r.want, r.sum = crc32c(answer.Header), crc32.New(castagnoli())
		return r, nil
	}
	begin := "bytes " + strconv.FormatInt(from, 10) + "-"
	if answer.ContentLength != 0 && !strings.HasPrefix(answer.Header.Get("Content-Range"), begin) {
		r.Close()
		return nil, errors.New("the server does not answer with the range it was asked for")
	}
	return r, nil
}

// crc32c is what a server says of the whole object, "" if it says nothing.
func crc32c(h http.Header) string {
	for _, value := range h.Values("X-Goog-Hash") {
		for part := range strings.SplitSeq(value, ",") {
			if sum, ok := strings.CutPrefix(strings.TrimSpace(part), "crc32c="); ok {
				return sum
			}
		}
	}
	return ""
}

// reader is the body of an answer. That it ends early the transport notices, by the length.
type reader struct {
	ctx     context.Context
	s       *Store
	key     string
	body    io.ReadCloser
	version string
	sum     hash.Hash32 // of a whole object; nil for a part of one
	want    string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if r.sum != nil {
		r.sum.Write(p[:n])
	}
	switch {
	case err == io.EOF && r.sum != nil && r.want != "" && encode(r.sum.Sum32()) != r.want:
		err = fmt.Errorf("get %s: what came has CRC-32C %s, and the server's is %s", r.key, encode(r.sum.Sum32()), r.want)
	case err != nil && err != io.EOF:
		err = r.s.fail(r.ctx, "get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Version implements store.Versioned: the object's generation.
func (r *reader) Version() string { return r.version }

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, key string) (store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Info{}, fmt.Errorf("head: %w", err)
	}
	for range 3 {
		o, err := s.api.Objects.Get(s.bucket, s.prefix+key).Fields("kind", "name", "size", "updated").Context(ctx).Do()
		if err == nil {
			info, err := infoOf(o, key)
			if err != nil {
				return store.Info{}, fmt.Errorf("head %s: %w", key, err)
			}
			return info, nil
		}
		if status(err) == http.StatusNotFound {
			if err = s.absent(ctx, key, err); err == nil {
				continue // it has just appeared
			}
		}
		return store.Info{}, s.fail(ctx, "head", key, err)
	}
	return store.Info{}, fmt.Errorf("head %s: the bucket lists it and does not give it", key)
}

func infoOf(o *storage.Object, key string) (store.Info, error) {
	updated, err := time.Parse(time.RFC3339, o.Updated)
	if err != nil || o.Name == "" {
		return store.Info{}, errors.New("the answer is not that of a bucket")
	}
	return store.Info{Key: key, Size: int64(o.Size), Modified: updated}, nil
}

// absent says what a 404 to a request for key means: an fs.ErrNotExist when the bucket lists no such object, a
// store.ErrNoRoot when there is no bucket, nil when the object is there after all.
func (s *Store) absent(ctx context.Context, key string, err error) error {
	name := s.prefix + key
	page, listing := s.page(ctx, name, "", "", 1)
	if listing != nil {
		return s.rootless(listing)
	}
	if len(page.Items) > 0 && page.Items[0].Name == name {
		return nil
	}
	return kindError{fs.ErrNotExist, err}
}

// rootless makes store.ErrNoRoot of a 404 to a request that names only the bucket.
func (s *Store) rootless(err error) error {
	if status(err) == http.StatusNotFound && isAPI(err) {
		return kindError{store.ErrNoRoot, err}
	}
	return err
}

// page lists up to limit objects whose names begin with prefix, from the name start on.
func (s *Store) page(ctx context.Context, prefix, start, token string, limit int64) (*storage.Objects, error) {
	call := s.api.Objects.List(s.bucket).Prefix(prefix).MaxResults(limit).Fields("kind", "nextPageToken", "items(name,size,updated)").Context(ctx)
	if start != "" {
		call.StartOffset(start)
	}
	if token != "" {
		call.PageToken(token)
	}
	page, err := call.Do()
	if err == nil && page.Kind != "storage#objects" {
		return nil, errors.New("the answer is not a bucket's listing")
	}
	return page, err
}

// List implements store.Store, a thousand keys a request.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		start := ""
		if after != "" {
			start = s.prefix + after // it is in the answer, and skipped
		}
		last := ""
		for token := ""; ; {
			page, err := s.page(ctx, s.prefix+prefix, start, token, 1000)
			if err != nil {
				yield(store.Info{}, s.fail(ctx, "list", prefix, s.rootless(err)))
				return
			}
			for _, o := range page.Items {
				key := strings.TrimPrefix(o.Name, s.prefix)
				if store.CheckKey(key) != nil || key <= after {
					continue // not ours: folder markers of consoles end in a slash
				}
				if key <= last {
					yield(store.Info{}, fmt.Errorf("list %s: %q after %q: the server does not list in byte order", prefix, key, last))
					return
				}
				last = key
				info, err := infoOf(o, key)
				if err != nil {
					err = fmt.Errorf("list %s: %w", prefix, err)
				}
				if !yield(info, err) || err != nil {
					return
				}
			}
			if token = page.NextPageToken; token == "" {
				return
			}
		}
	}
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	for range 3 {
		err := s.api.Objects.Delete(s.bucket, s.prefix+key).Context(ctx).Do()
		if err == nil {
			return nil
		}
		if status(err) == http.StatusNotFound {
			if err = s.absent(ctx, key, err); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err == nil {
				continue // it has just appeared
			}
		}
		return s.fail(ctx, "delete", key, err)
	}
	return fmt.Errorf("delete %s: the bucket lists it and does not delete it", key)
}
