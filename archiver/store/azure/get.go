package azure

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	return remote.Get(ctx, s, key, from, n, func() (io.ReadCloser, error) {
		r, err := s.open(ctx, key, from, n)
		if err != nil {
			return nil, s.fail(ctx, "get", key, err)
		}
		return r, nil
	})
}

// open is Get with the SDK's errors.
func (s *Store) open(ctx context.Context, key string, from, n int64) (io.ReadCloser, error) {
	part := blob.HTTPRange{Offset: from} // a count of 0 is the SDK's word for all the rest
	if n > 0 && from+n > from {
		part.Count = n
	}
	out, err := s.container.NewBlobClient(s.prefix+key).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: part})
	if status, _ := answer(err); status == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), nil // it begins at the end of the object or later
	}
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, s: s, key: key, body: out.Body}
	if out.ETag == nil { // a blob has one, a proxy's page has not
		r.Close()
		return nil, errStrange
	}
	r.version = string(*out.ETag)
	if part == (blob.HTTPRange{}) {
		r.want, r.sum = out.ContentMD5, md5.New()
		return r, nil
	}
	begin := "bytes " + strconv.FormatInt(from, 10) + "-"
	empty := out.ContentLength != nil && *out.ContentLength == 0
	if !empty && (out.ContentRange == nil || !strings.HasPrefix(*out.ContentRange, begin)) {
		r.Close()
		return nil, errors.New("the server does not answer with the range it was asked for")
	}
	return r, nil
}

// reader is the body of an answer. That it ends early the transport notices, by the length.
type reader struct {
	ctx     context.Context
	s       *Store
	key     string
	body    io.ReadCloser
	version string
	sum     hash.Hash // of a whole object; nil for a part of one
	want    []byte
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if r.sum != nil {
		r.sum.Write(p[:n])
	}
	switch {
	case err == io.EOF && r.sum != nil && r.want != nil && !bytes.Equal(r.sum.Sum(nil), r.want):
		err = fmt.Errorf("get %s: what came has MD5 %x, and the server's is %x", r.key, r.sum.Sum(nil), r.want)
	case err != nil && err != io.EOF:
		err = r.s.fail(r.ctx, "get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Version implements store.Versioned: the blob's ETag.
func (r *reader) Version() string { return r.version }

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, key string) (store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Info{}, fmt.Errorf("head: %w", err)
	}
	out, err := s.container.NewBlobClient(s.prefix+key).GetProperties(ctx, nil)
	if err != nil {
		return store.Info{}, s.fail(ctx, "head", key, err)
	}
	info, err := infoOf(key, out.ContentLength, out.LastModified)
	if err == nil && out.ETag == nil {
		err = errStrange
	}
	if err != nil {
		return store.Info{}, fmt.Errorf("head %s: %w", key, err)
	}
	return info, nil
}

var errStrange = errors.New("the answer is not that of a blob service")

func infoOf(key string, size *int64, modified *time.Time) (store.Info, error) {
	if size == nil || modified == nil {
		return store.Info{}, errStrange
	}
	return store.Info{Key: key, Size: *size, Modified: *modified}, nil
}

// List implements store.Store, five thousand keys a request. startFrom, which Azure has since version 2026-02-06 of its API, is
// inclusive, and a server that does not know it begins at the prefix: what is not wanted is skipped.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		whole := s.prefix + prefix
		options := &container.ListBlobsFlatOptions{Prefix: &whole}
		if start := s.prefix + after; after != "" && start > whole {
			options.StartFrom = &start
		}
		last := ""
		for pages := s.container.NewListBlobsFlatPager(options); pages.More(); {
			page, err := pages.NextPage(ctx)
			if err == nil && page.Segment == nil {
				err = errStrange
			}
			if err != nil {
				yield(store.Info{}, s.fail(ctx, "list", prefix, err))
				return
			}
			for _, item := range page.Segment.BlobItems {
				info, ours, err := s.infoOf(item)
				switch {
				case err != nil:
					yield(store.Info{}, fmt.Errorf("list %s: %w", prefix, err))
					return
				case !ours || info.Key <= after:
					continue
				case info.Key <= last:
					yield(store.Info{}, fmt.Errorf("list %s: %q after %q: the server does not list in byte order", prefix, info.Key, last))
					return
				}
				last = info.Key
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// infoOf says what a listing says of one blob, and whether it can be ours: the folders of an account with a hierarchical
// namespace are listed, too.
func (s *Store) infoOf(item *container.BlobItem) (info store.Info, ours bool, err error) {
	if item.Name == nil || item.Properties == nil {
		return store.Info{}, false, errStrange
	}
	key := strings.TrimPrefix(*item.Name, s.prefix)
	folder := item.Properties.ResourceType != nil && *item.Properties.ResourceType == "directory"
	if folder || store.CheckKey(key) != nil {
		return store.Info{}, false, nil
	}
	info, err = infoOf(key, item.Properties.ContentLength, item.Properties.LastModified)
	return info, true, err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	_, err := s.container.NewBlobClient(s.prefix+key).Delete(ctx, nil)
	if err == nil {
		return nil
	}
	if err = s.fail(ctx, "delete", key, err); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
