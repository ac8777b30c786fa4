package azure

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// answer is what the server said, if it said anything.
func answer(err error) (status int, code bloberror.Code) {
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		return response.StatusCode, bloberror.Code(response.ErrorCode)
	}
	return 0, ""
}

// perhaps says whether a conditional write that ended with err may still have been done.
func perhaps(err error) bool {
	if errors.As(err, new(remote.Certain)) || remote.NeverDialled(err) || noToken(err) {
		return false
	}
	switch status, code := answer(err); status {
	case http.StatusBadRequest:
		return code == bloberror.InvalidBlockList // somebody else has committed, or our earlier try
	case http.StatusRequestTimeout:
		return true
	default:
		return status < 400 || status >= 500
	}
}

// refused says whether a conditional write was certainly not done, for a reason that may hide that the name is taken: a token that may
// create and not overwrite, a lease or a policy on what is there.
func refused(err error) bool {
	status, _ := answer(err)
	return status == http.StatusForbidden && !errors.As(err, new(remote.Certain)) ||
		(status == http.StatusConflict || status == http.StatusPreconditionFailed) && kind(err) == store.ErrProtected
}

// noToken says whether a request was not made for lack of a token.
func noToken(err error) bool {
	var failed *azidentity.AuthenticationFailedError
	return errors.As(err, &failed) || strings.Contains(err.Error(), "DefaultAzureCredential: ")
}

// kind is the io/fs word, or one of package store, for what the server said; nil when there is none.
// A 404 without one of Azure's codes, from a proxy perhaps, proves nothing about a key.
func kind(err error) error {
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) && failed.RawResponse != nil && failed.RawResponse.StatusCode/100 == 4 && failed.RawResponse.StatusCode != http.StatusTooManyRequests {
		return fs.ErrPermission
	}
	status, code := answer(err)
	switch code {
	case bloberror.BlobAlreadyExists, bloberror.ConditionNotMet:
		return fs.ErrExist
	case bloberror.BlobNotFound:
		return fs.ErrNotExist
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return store.ErrNoRoot
	case bloberror.BlobImmutableDueToPolicy, bloberror.LeaseIDMissing, bloberror.LeaseIDMismatchWithBlobOperation, bloberror.SnapshotsPresent:
		return store.ErrProtected
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fs.ErrPermission
	}
	return nil
}

// fail is the error of a request as this package returns it: verb, key, kind, and what the server said.
func (s *Store) fail(ctx context.Context, verb, key string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s: %w", verb, key, cause)
	}
	if kind := kind(err); kind != nil {
		return fmt.Errorf("%s %s: %w (%v)", verb, key, kind, s.plain(err))
	}
	return fmt.Errorf("%s %s: %w", verb, key, remote.Unknown(s.plain(err)))
}

// plain takes the SDK's layers off an error, and every URL: it may hold a SAS token.
func (s *Store) plain(err error) error {
	var block blockError
	if errors.As(err, &block) {
		return fmt.Errorf("block %d of %d: %w", block.n, block.of, s.plain(block.err))
	}
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		return errors.New(said(response))
	}
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) {
		return errors.New("no token: " + firstLine(failed.Error()))
	}
	var unknown *net.DNSError
	if errors.As(err, &unknown) && unknown.IsNotFound {
		return fmt.Errorf("%s does not exist: is %q the name of a storage account?", unknown.Name, s.account)
	}
	var transport *url.Error
	switch {
	case errors.As(err, &transport):
		return transport.Err
	case strings.Contains(err.Error(), "DefaultAzureCredential: "):
		return errors.New("no credentials were found: no account key or SAS token in the configuration, none in the environment, no identity of this machine")
	}
	return err
}

// said is what an answer says: status, code, the first line of the message, and its number.
func said(response *azcore.ResponseError) string {
	text := fmt.Sprint(response.StatusCode)
	if response.ErrorCode != "" {
		text += " " + response.ErrorCode
	}
	if response.RawResponse == nil {
		return text
	}
	var body struct{ Message, AuthenticationErrorDetail string }
	if content, err := runtime.Payload(response.RawResponse); err == nil && xml.Unmarshal(content, &body) == nil {
		for _, part := range []string{body.Message, body.AuthenticationErrorDetail} {
			if part = firstLine(part); part != "" {
				text += ": " + part
			}
		}
	}
	if id := response.RawResponse.Header.Get("x-ms-request-id"); id != "" {
		text += ", request " + id
	}
	return text
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(s, "\ufeff")), "\n")
	return strings.TrimSpace(line)
}
