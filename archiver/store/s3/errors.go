package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// answer is what the server said, if it said anything.
func answer(err error) (status int, code, message, request string) {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status, request = response.HTTPStatusCode(), response.ServiceRequestID()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		code, message = api.ErrorCode(), api.ErrorMessage()
	}
	return status, code, message, request
}

// perhaps says whether a conditional write that ended with err may still have been done. A refusal is clear;
// no answer, a server's failure and a conflict are not. 503 is: S3 sends it before it does anything, and a server
// that is overloaded should not be asked more.
func perhaps(err error) bool {
	if errors.As(err, new(remote.Certain)) || remote.NeverDialled(err) {
		return false
	}
	status, code, _, _ := answer(err)
	switch status {
	case http.StatusConflict, http.StatusRequestTimeout:
		return true
	case http.StatusServiceUnavailable:
		return false
	case http.StatusNotFound:
		return code == "NoSuchUpload" // it is gone when an earlier completion has succeeded
	}
	// An answer of 200 whose body is an error or is cut (a completion may send one) is unclear as well.
	return status < 400 || status >= 500
}

// kind is the io/fs word, or store.ErrNoRoot, for what the server said; nil when there is none.
// A 404 without S3's own code, from a proxy perhaps, proves nothing about a key.
func kind(err error) error {
	status, code, _, _ := answer(err)
	switch {
	case status == http.StatusPreconditionFailed:
		return fs.ErrExist
	case status == http.StatusUnauthorized || status == http.StatusForbidden,
		code == "XAdminUserNotFound": // versitygw's word for an access key that nobody has, with 404
		return fs.ErrPermission
	case status == http.StatusNotFound && code == "NoSuchBucket":
		return store.ErrNoRoot
	case status == http.StatusNotFound && code == "NoSuchKey":
		return fs.ErrNotExist
	}
	return nil
}

// fail is the error of a request as this package returns it: verb, key, kind, and what the server said.
func (s *Store) fail(ctx context.Context, verb, key string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s: %w", verb, key, cause)
	}
	if kind := kind(err); kind != nil {
		return fmt.Errorf("%s %s: %w (%v)", verb, key, kind, plain(err))
	}
	return fmt.Errorf("%s %s: %w", verb, key, remote.Unknown(plain(err)))
}

// plain takes the SDK's layers off an error.
func plain(err error) error {
	status, code, message, request := answer(err)
	if status >= 400 && code != "" {
		detail := fmt.Sprintf("%d %s", status, code)
		if message != "" {
			detail += ": " + message
		}
		if request != "" {
			detail += ", request " + request
		}
		// KMS.DisabledException and its kin at Amazon, or AccessDenied about kms:Decrypt; kms:KeyNotFound at MinIO.
		if strings.Contains(strings.ToLower(code+message), "kms") {
			return fmt.Errorf("the server cannot use the KMS key: it is lost, disabled, another one than it was, or not for us (%s)", detail)
		}
		return errors.New(detail)
	}
	var transport *url.Error
	if errors.As(err, &transport) {
		return transport.Err // without the URL, which the caller knows
	}
	var operation *smithy.OperationError
	if !errors.As(err, &operation) {
		return err
	}
	if cause, ok := strings.CutPrefix(operation.Err.Error(), "get identity: get credentials: "); ok {
		return fmt.Errorf("no credentials were found, not in the configuration, the environment or a role of this machine (%s)", cause)
	}
	return operation.Err
}
