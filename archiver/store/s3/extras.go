package s3

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// extras are what requests say besides bucket and key. The zero value says nothing.
type extras struct {
	sse    types.ServerSideEncryption
	kmsKey *string
	class  types.StorageClass
	payer  types.RequestPayer
}

func parseExtras(sse, kmsKey, class, requesterPays string) (extras, error) {
	e := extras{sse: types.ServerSideEncryption(sse), class: types.StorageClass(class)}
	ways := []types.ServerSideEncryption{types.ServerSideEncryptionAes256, types.ServerSideEncryptionAwsKms, types.ServerSideEncryptionAwsKmsDsse}
	if sse != "" && !slices.Contains(ways, e.sse) {
		return extras{}, fmt.Errorf("sse %q is none of %s, %s and %s", sse, ways[0], ways[1], ways[2])
	}
	if kmsKey != "" {
		if e.sse != types.ServerSideEncryptionAwsKms && e.sse != types.ServerSideEncryptionAwsKmsDsse {
			return extras{}, errors.New("sse_kms_key_id goes together with sse=aws:kms")
		}
		e.kmsKey = &kmsKey
	}
	switch e.class {
	case types.StorageClassGlacier, types.StorageClassDeepArchive:
		// Another name may be that of a class of another server (Ceph), which says no itself if it is not.
		return extras{}, fmt.Errorf("storage_class %s: its objects cannot be read at once, so no recovery could; GLACIER_IR can", class)
	}
	if requesterPays != "" {
		pays, err := strconv.ParseBool(requesterPays)
		if err != nil {
			return extras{}, fmt.Errorf("requester_pays %q is neither true nor false", requesterPays)
		}
		if pays {
			e.payer = types.RequestPayerRequester
		}
	}
	return e, nil
}

// put adds them to a single put.
func (e extras) put(in *awss3.PutObjectInput) *awss3.PutObjectInput {
	in.ServerSideEncryption, in.SSEKMSKeyId, in.StorageClass, in.RequestPayer = e.sse, e.kmsKey, e.class, e.payer
	return in
}

// create adds them to the beginning of a multipart upload, whose parts are then encrypted the same way.
func (e extras) create(in *awss3.CreateMultipartUploadInput) *awss3.CreateMultipartUploadInput {
	in.ServerSideEncryption, in.SSEKMSKeyId, in.StorageClass, in.RequestPayer = e.sse, e.kmsKey, e.class, e.payer
	return in
}
