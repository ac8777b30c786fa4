package gcs

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

const contentType = "application/octet-stream"

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	// All of the body is read before the first request: a body that is not as long as it says never leaves.
	sum, err := checksum(ctx, b)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	body := remote.Lend(ctx, b)
	defer body.End()
	err = s.insert(ctx, key, body, b.Size(), sum)
	body.End() // before the look reads b itself
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && perhaps(err):
		switch verdict := remote.Look(ctx, s, key, b); {
		case verdict == nil:
			return nil
		case errors.Is(verdict, fs.ErrExist):
			return fmt.Errorf("put %s: %w, found after: %v", key, fs.ErrExist, plain(err))
		case errors.Is(verdict, store.ErrNoRoot):
			return fmt.Errorf("put %s: %w (%v)", key, store.ErrNoRoot, plain(err))
		}
	case ctx.Err() == nil && refused(err):
		if _, there := s.Head(ctx, key); there == nil {
			return fmt.Errorf("put %s: %w (%v)", key, fs.ErrExist, plain(err))
		}
	}
	return s.fail(ctx, "put", key, err)
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// encode gives a CRC-32C the form that Google's API has for it.
func encode(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func checksum(ctx context.Context, b store.Body) (string, error) {
	r, err := store.Exact(ctx, b)
	if err != nil {
		return "", err
	}
	sum := crc32.New(castagnoli())
	if _, err := io.Copy(sum, r); err != nil {
		return "", err
	}
	return encode(sum.Sum32()), nil
}

func (s *Store) insert(ctx context.Context, key string, body *remote.Loan, size int64, sum string) error {
	call := s.api.Objects.Insert(s.bucket, &storage.Object{Name: s.prefix + key, ContentType: contentType, Crc32c: sum}).
		IfGenerationMatch(0).Fields("size", "crc32c").Context(ctx)
	if size > s.above {
		//lint:ignore SA1019 Media would put what fits into one chunk in one request, so that the proof could not try this way
		call = call.ResumableMedia(ctx, body, size, contentType)
		call = call.WithRetry(nil, func(error) bool { return false })
	} else {
		call = call.Media(body.Section(0, size), googleapi.ChunkSize(0))
	}
	stored, err := call.Do()
	if err != nil {
		return err
	}
	if stored.Crc32c != sum || int64(stored.Size) != size {
		return fmt.Errorf("the server stored %d bytes with CRC-32C %s, not our %d with %s", stored.Size, stored.Crc32c, size, sum)
	}
	return nil
}
