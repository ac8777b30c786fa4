package gcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// kindError is what the server said, and what it means.
type kindError struct{ kind, err error }

func (e kindError) Error() string   { return fmt.Sprintf("%v (%v)", e.kind, plain(e.err)) }
func (e kindError) Unwrap() []error { return []error{e.kind, e.err} }

// status is the HTTP status of an error answer, 0 when there is none.
func status(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}

// isAPI says whether an error answer is the API's own. One from a proxy says nothing about a bucket.
func isAPI(err error) bool {
	var api *googleapi.Error
	return errors.As(err, &api) && len(api.Errors) > 0
}

// reason is the API's word for an error, such as retentionPolicyNotMet.
func reason(err error) string {
	var api *googleapi.Error
	if errors.As(err, &api) && len(api.Errors) > 0 {
		return api.Errors[0].Reason
	}
	return ""
}

// perhaps says whether a conditional write that ended with err may still have been done.
func perhaps(err error) bool {
	if errors.As(err, new(remote.Certain)) || remote.NeverDialled(err) {
		return false
	}
	switch code := status(err); code {
	case http.StatusNotFound, http.StatusGone, http.StatusRequestTimeout, http.StatusConflict:
		return true // 404 and 410: no bucket, or the session of an upload that an earlier request has completed
	default:
		return code < 400 || code >= 500
	}
}

// refused says whether a conditional write was certainly not done, for a reason that may hide that the name is taken: who would overwrite
// is asked for the right to delete, or told of a hold, perhaps before the condition is looked at.
func refused(err error) bool {
	return status(err) == http.StatusForbidden && (strings.Contains(err.Error(), "storage.objects.delete") || kind(err) == store.ErrProtected)
}

// kind is the io/fs word, or one of package store, for what the server said; nil when there is none. What 404 means
// takes another request (absent).
func kind(err error) error {
	var token *auth.Error
	if errors.As(err, &token) && token.Response != nil && token.Response.StatusCode >= 400 && token.Response.StatusCode < 500 &&
		token.Response.StatusCode != http.StatusTooManyRequests {
		return fs.ErrPermission
	}
	switch status(err) {
	case http.StatusPreconditionFailed:
		return fs.ErrExist
	case http.StatusUnauthorized:
		return fs.ErrPermission
	case http.StatusForbidden:
		switch why := reason(err); {
		case strings.HasSuffix(why, "LimitExceeded"), why == "quotaExceeded":
			return nil // too much at once
		case why == "retentionPolicyNotMet", why == "objectUnderActiveHold":
			return store.ErrProtected
		}
		// Holds, and retention of single objects, have no documented word of their own.
		if text := err.Error(); strings.Contains(text, "-Based hold") || strings.Contains(text, "Temporary hold") || strings.Contains(text, "retention") {
			return store.ErrProtected
		}
		return fs.ErrPermission
	}
	return nil
}

// fail is the error of a request as this package returns it: verb, key, kind, and what the server said.
func (s *Store) fail(ctx context.Context, verb, key string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s: %w", verb, key, cause)
	}
	if errors.As(err, new(kindError)) {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	if kind := kind(err); kind != nil {
		return fmt.Errorf("%s %s: %w (%v)", verb, key, kind, plain(err))
	}
	return fmt.Errorf("%s %s: %w", verb, key, remote.Unknown(plain(err)))
}

// plain takes the library's layers off an error.
func plain(err error) error {
	var api *googleapi.Error
	var token tokenError
	var transport *url.Error
	switch {
	case errors.As(err, &api):
		detail := fmt.Sprintf("%d %s", api.Code, reason(err))
		if message := api.Message; message != "" {
			detail += ": " + message
		} else if text := strings.TrimSpace(api.Body); text != "" && len(text) < 300 && !strings.HasPrefix(text, "<") {
			detail += ": " + text
		}
		return errors.New(detail)
	case errors.As(err, &token):
		return token.plain()
	case errors.As(err, &transport):
		return transport.Err // without the URL, which the caller knows
	}
	return err
}

// plain says in one line why there is no token.
func (e tokenError) plain() error {
	text := e.err.Error()
	if strings.Contains(text, "could not find default credentials") {
		return errors.New("no credentials were found: not in GOOGLE_APPLICATION_CREDENTIALS, not in gcloud's file, not from a role of this machine")
	}
	return errors.New("no token: " + strings.Join(strings.Fields(text), " "))
}
