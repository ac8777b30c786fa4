package azure

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	// All of the body is read before the first request: a body that is not as long as it says never leaves.
	whole, blocks, err := s.checksums(ctx, b)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	body := remote.Lend(ctx, b)
	defer body.End()
	client := s.container.NewBlockBlobClient(s.prefix + key)
	if len(blocks) == 0 {
		err = putSingle(ctx, client, body, b.Size(), whole)
	} else {
		err = s.putBlocks(ctx, client, body, b.Size(), whole, blocks)
	}
	body.End() // before the look reads b itself
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && perhaps(err):
		if verdict := remote.Look(ctx, s, key, b); verdict == nil {
			return nil
		} else if errors.Is(verdict, fs.ErrExist) {
			return fmt.Errorf("put %s: %w, found after: %v", key, fs.ErrExist, s.plain(err))
		}
	case ctx.Err() == nil && refused(err):
		if _, there := s.Head(ctx, key); there == nil {
			return fmt.Errorf("put %s: %w (%v)", key, fs.ErrExist, s.plain(err))
		}
	}
	return s.fail(ctx, "put", key, err)
}

// checksums reads b once. It returns the MD5 of the whole, and those of its blocks if it is put in blocks.
func (s *Store) checksums(ctx context.Context, b store.Body) (whole []byte, blocks [][]byte, err error) {
	r, err := store.Exact(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	all := md5.New()
	if b.Size() <= s.above {
		_, err = io.Copy(all, r)
		return all.Sum(nil), nil, err
	}
	for left := b.Size(); ; left -= s.blockSize {
		var one hash.Hash = md5.New()
		if left <= s.blockSize { // to the very end, to see that it is one
			_, err = io.Copy(io.MultiWriter(all, one), r)
		} else {
			_, err = io.CopyN(io.MultiWriter(all, one), r, s.blockSize)
		}
		if err != nil {
			return nil, nil, err
		}
		blocks = append(blocks, one.Sum(nil))
		if left <= s.blockSize {
			return all.Sum(nil), blocks, nil
		}
	}
}

// ifAbsent is the condition of every write.
func ifAbsent() *blob.AccessConditions {
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
}

func headers(sum []byte) *blob.HTTPHeaders {
	return &blob.HTTPHeaders{BlobContentType: to.Ptr("application/octet-stream"), BlobContentMD5: sum}
}

func putSingle(ctx context.Context, client *blockblob.Client, body *remote.Loan, size int64, sum []byte) error {
	_, err := client.Upload(ctx, streaming.NopCloser(body.Section(0, size)), &blockblob.UploadOptions{
		HTTPHeaders: headers(sum), AccessConditions: ifAbsent(), TransactionalValidation: blob.TransferValidationTypeMD5(sum)})
	return err
}

// putBlocks uploads one block after the other: a body is read sequentially, and other segments use the line meanwhile.
func (s *Store) putBlocks(ctx context.Context, client *blockblob.Client, body *remote.Loan, size int64, whole []byte, sums [][]byte) error {
	mine := rand.Text() // and a number: all names of the blocks of one blob have the same length
	var names []string
	for i, sum := range sums {
		from := int64(i) * s.blockSize
		name := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s%06d", mine, i))
		_, err := client.StageBlock(ctx, name, streaming.NopCloser(body.Section(from, min(s.blockSize, size-from))),
			&blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeMD5(sum)})
		if err != nil {
			return remote.Certain{Err: blockError{i + 1, len(sums), err}}
		}
		names = append(names, name)
	}
	_, err := client.CommitBlockList(ctx, names, &blockblob.CommitBlockListOptions{HTTPHeaders: headers(whole), AccessConditions: ifAbsent()})
	return err
}

// blockError says which block did not arrive.
type blockError struct {
	n, of int
	err   error
}

func (e blockError) Error() string { return fmt.Sprintf("block %d of %d: %v", e.n, e.of, e.err) }
func (e blockError) Unwrap() error { return e.err }
