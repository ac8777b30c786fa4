package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// abortTime is how long a failed upload may take to clean up behind itself.
const abortTime = 10 * time.Second

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, b store.Body) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	partSize := int64(0) // one part, of any size
	if b.Size() > s.above {
		partSize = s.partSize
	}
	// All of the body is read before the first request: a body that is not as long as it says never leaves.
	sums, err := checksums(ctx, b, partSize)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	body := remote.Lend(ctx, b)
	defer body.End()
	if partSize == 0 {
		err = s.putSingle(ctx, key, body, b.Size(), sums[0])
	} else {
		err = s.putParts(ctx, key, body, b.Size(), sums)
	}
	body.End() // before the look reads b itself
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && perhaps(err):
		if verdict := remote.Look(ctx, s, key, b); verdict == nil {
			return nil
		} else if errors.Is(verdict, fs.ErrExist) {
			err = fmt.Errorf("%w, found after: %v", fs.ErrExist, plain(err))
			return fmt.Errorf("put %s: %w", key, err)
		}
	}
	return s.fail(ctx, "put", key, err)
}

// checksums reads b once and returns the CRC-32 of each part, in the form of the x-amz-checksum-crc32 header.
func checksums(ctx context.Context, b store.Body, partSize int64) ([]string, error) {
	r, err := store.Exact(ctx, b)
	if err != nil {
		return nil, err
	}
	var sums []string
	for left := b.Size(); ; {
		sum := crc32.NewIEEE()
		if partSize == 0 || left <= partSize { // to the very end, to see that it is one
			_, err = io.Copy(sum, r)
		} else {
			_, err = io.CopyN(sum, r, partSize)
		}
		if err != nil {
			return nil, err
		}
		sums = append(sums, base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum.Sum32())))
		if left -= partSize; partSize == 0 || left <= 0 {
			return sums, nil
		}
	}
}

func (s *Store) putSingle(ctx context.Context, key string, body *remote.Loan, size int64, sum string) error {
	_, err := s.client.PutObject(ctx, s.extras.put(&awss3.PutObjectInput{
		Bucket:        &s.bucket,
		Key:           aws.String(s.prefix + key),
		Body:          body.Section(0, size),
		ContentLength: aws.Int64(size),
		ContentType:   aws.String("application/octet-stream"),
		ChecksumCRC32: &sum,
		IfNoneMatch:   aws.String("*"),
	}))
	return err
}

// putParts uploads one part after the other: a body is read sequentially, and other segments
// use the line meanwhile. Whatever goes wrong, it aborts the upload, unless it was completed.
func (s *Store) putParts(ctx context.Context, key string, body *remote.Loan, size int64, sums []string) error {
	created, err := s.client.CreateMultipartUpload(ctx, s.extras.create(&awss3.CreateMultipartUploadInput{
		Bucket:            &s.bucket,
		Key:               aws.String(s.prefix + key),
		ContentType:       aws.String("application/octet-stream"),
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	}))
	if err != nil {
		return remote.Certain{Err: err}
	}
	err = s.upload(ctx, key, created.UploadId, body, size, sums)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		// An upload that stays costs storage and nothing else; the lifecycle rule removes it.
		_, _ = s.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{
			Bucket: &s.bucket, Key: aws.String(s.prefix + key), UploadId: created.UploadId, RequestPayer: s.extras.payer})
	}
	return err
}

func (s *Store) upload(ctx context.Context, key string, id *string, body *remote.Loan, size int64, sums []string) error {
	var parts []types.CompletedPart
	for i, sum := range sums {
		from := int64(i) * s.partSize
		length := min(s.partSize, size-from)
		number := aws.Int32(int32(i + 1))
		part, err := s.client.UploadPart(ctx, &awss3.UploadPartInput{
			Bucket:        &s.bucket,
			Key:           aws.String(s.prefix + key),
			UploadId:      id,
			PartNumber:    number,
			Body:          body.Section(from, length),
			ContentLength: &length,
			ChecksumCRC32: &sum,
			RequestPayer:  s.extras.payer,
		})
		if err != nil {
			return remote.Certain{Err: fmt.Errorf("part %d of %d: %w", i+1, len(sums), err)}
		}
		parts = append(parts, types.CompletedPart{PartNumber: number, ETag: part.ETag, ChecksumCRC32: &sum})
	}
	_, err := s.client.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{
		Bucket:          &s.bucket,
		Key:             aws.String(s.prefix + key),
		UploadId:        id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		IfNoneMatch:     aws.String("*"),
		RequestPayer:    s.extras.payer,
	})
	return err
}
