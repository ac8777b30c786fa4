package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

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
	in := &awss3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key), ChecksumMode: types.ChecksumModeEnabled,
		RequestPayer: s.extras.payer}
	ranged := from > 0 || n > 0
	if ranged {
		in.Range = aws.String(remote.Range(from, n))
	}
	out, err := s.client.GetObject(ctx, in)
	if status, _, _, _ := answer(err); status == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), nil // it begins at the end of the object or later
	}
	if err != nil {
		return nil, err
	}
	begin := "bytes " + strconv.FormatInt(from, 10) + "-"
	empty := out.ContentLength != nil && *out.ContentLength == 0 // some answer so instead of 416
	if ranged && !empty && !strings.HasPrefix(aws.ToString(out.ContentRange), begin) {
		out.Body.Close()
		return nil, errors.New("the server does not answer with the range it was asked for")
	}
	return &reader{ctx: ctx, s: s, key: key, body: out.Body}, nil
}

// reader is the body of an answer. That it ends early the transport notices, by the length.
type reader struct {
	ctx  context.Context
	s    *Store
	key  string
	body io.ReadCloser
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err != nil && err != io.EOF {
		err = r.s.fail(r.ctx, "get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Head implements store.Store. The answer to a HEAD has no body that says what is absent, the key or the
// bucket; so a 404 is followed by a GET of one byte, which has.
func (s *Store) Head(ctx context.Context, key string) (store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Info{}, fmt.Errorf("head: %w", err)
	}
	for range 3 {
		out, err := s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key), RequestPayer: s.extras.payer})
		if err == nil {
			return store.Info{Key: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified)}, nil
		}
		if status, _, _, _ := answer(err); status != http.StatusNotFound {
			return store.Info{}, s.fail(ctx, "head", key, err)
		}
		r, err := s.open(ctx, key, 0, 1)
		if err != nil {
			return store.Info{}, s.fail(ctx, "head", key, err)
		}
		r.Close() // it has just appeared: ask again
	}
	return store.Info{}, fmt.Errorf("head %s: the server has it for GET and not for HEAD", key)
}

// List implements store.Store, a thousand keys a request.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		in := &awss3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + prefix), RequestPayer: s.extras.payer}
		if after != "" {
			in.StartAfter = aws.String(s.prefix + after)
		}
		last := ""
		for pages := awss3.NewListObjectsV2Paginator(s.client, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(store.Info{}, s.fail(ctx, "list", prefix, err))
				return
			}
			for _, o := range page.Contents {
				key := strings.TrimPrefix(aws.ToString(o.Key), s.prefix)
				if store.CheckKey(key) != nil || key <= after {
					continue // not ours: folder markers of consoles end in a slash
				}
				if key <= last {
					yield(store.Info{}, fmt.Errorf("list %s: %q after %q: the server does not list in byte order", prefix, key, last))
					return
				}
				last = key
				if !yield(store.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key), RequestPayer: s.extras.payer})
	if err == nil {
		return nil
	}
	if err = s.fail(ctx, "delete", key, err); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
