package s3

import (
	"context"
	"net/http"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

// Hides implements store.Hider: a bucket that has, or once had, versions keeps what is deleted as a noncurrent version
// behind a delete marker, until a lifecycle rule (NoncurrentVersionExpiration) removes it; an object lock is only on a bucket
// with versions. Needed permission: s3:GetBucketVersioning.
//
// It is true while versioning is suspended as well: what was written before is still kept
// (Amazon S3 User Guide, "Working with delete markers").
func (s *Store) Hides(ctx context.Context) (bool, error) {
	out, err := s.client.GetBucketVersioning(ctx, &awss3.GetBucketVersioningInput{Bucket: &s.bucket})
	if status, _, _, _ := answer(err); status == http.StatusNotImplemented {
		return false, nil // a server that knows no versions
	}
	if err != nil {
		return false, s.fail(ctx, "get versioning of", s.bucket, err)
	}
	return out.Status != "", nil
}
