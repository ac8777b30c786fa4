// Package store is the seam between the archive and the places that keep it: folders,
// S3 and its kin. A Store moves bytes under keys and knows nothing of WAL.
//
// Its one promise is P2 of package archiver, written once: [Store.Put] is put-if-absent.
// Of any number of writers that put one key at the same time, on any machines, at most
// one succeeds; the others get [fs.ErrExist]. Nothing in this package can overwrite.
//
//	store.Retry(store.Stall(store.Meter(driver, metrics), 30*time.Second), store.Backoff{})
//
// Drivers (mem, file, s3) are leaves: raw operations, no second try, no policy. Policy is
// four decorators, one file each: [Retry] tries again, [Stall] gives up a transfer that
// moves no bytes, [Meter] counts, [Limit] keeps to a bandwidth. Whether a server really honours the condition is not
// believed but shown, by [Prove], before the first put.
//
// # Errors
//
// Kinds are those of io/fs, asked with errors.Is, plus two:
//
//	fs.ErrExist       the key is taken. Not a failure: compare the content (see Put)
//	fs.ErrNotExist    the store answered, and has no such key
//	fs.ErrPermission  the store refused us
//	fs.ErrInvalid     a key or range that no store could take, a body that is not as long as it says
//	ErrNoRoot         no bucket, or the folder is not there (an unmounted disk)
//	ErrProtected      an fs.ErrPermission of Delete: a lock, hold, lease or retention policy keeps the object
//
// Everything else (resets, 503, timeouts) is an ordinary error and means: not known.
// ErrNoRoot never matches fs.ErrNotExist, so that an unmounted disk cannot be taken for
// an archive that lacks a file.
//
// # A new driver
//
// It is one package and twenty lines of test: storetest.Run holds it to all of this.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrNoRoot says that the place itself is missing: the bucket, or the root folder. A store
// never makes its own root, because the root of an unmounted disk would be made on the wrong one.
var ErrNoRoot = errors.New("no such root")

// ErrProtected says that not we, but nobody may delete an object now: an object lock, a hold, a lease or a retention policy
// keeps it. It is an fs.ErrPermission as well.
var ErrProtected = fmt.Errorf("the store protects this object: %w", fs.ErrPermission)

// Store is one place that keeps objects. All methods may be called at the same time from
// many goroutines, and return soon after their context ends.
type Store interface {
	// Put stores all of b under key, durably, unless the key is taken: then it returns
	// fs.ErrExist and changes nothing. It rewinds b first. A b that is shorter or longer than
	// its Size stores nothing and is an error. Once Put has returned, b is not touched any more.
	//
	// fs.ErrExist says that a durable object is there, and not whose. Any other error does not say that
	// nothing is there: the request may have arrived, or may arrive later. So a caller that
	// gets fs.ErrExist compares the content, always; it may be its own.
	Put(ctx context.Context, key string, b Body) error

	// Get reads n bytes of the object from offset from on, or all the rest when n < 0. A range
	// is cut at the end of the object, and empty when it begins there or later. The reader
	// fails rather than ending early. The caller closes it.
	Get(ctx context.Context, key string, from, n int64) (io.ReadCloser, error)

	// Head says what is stored under key. What Head and Get show is durable.
	Head(ctx context.Context, key string) (Info, error)

	// List yields the objects whose keys begin with prefix and come strictly after after, in
	// byte order of the whole key. An error is the last thing that it yields. It need not be a
	// snapshot, but an object that was there all the time is in it.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes the object. That it is not there is success.
	Delete(ctx context.Context, key string) error

	// String is the URL of the store, without secrets.
	fmt.Stringer
}

// Body is what is put: bytes that know how many they are, and that can be read again.
// A *bytes.Reader, a *strings.Reader and an *io.SectionReader are one.
type Body interface {
	io.ReadSeeker
	Size() int64 // bytes, from the first to the last, wherever the reader stands
}

// Info describes one stored object.
type Info struct {
	Key      string
	Size     int64     // bytes
	Modified time.Time // by the store's clock
}

// MaxKey is the length in bytes of the longest key that CheckKey accepts. S3 ends at 1024,
// the prefix of the archive's URL included.
const MaxKey = 800

// CheckKey returns fs.ErrInvalid for a key that some store could not keep as it is: an empty or
// overlong one, an element that is empty, "." or "..", a control character, broken UTF-8, a backslash (for Azure it is a slash).
//
// It cannot see one more rule: no key may be a folder of another one ("a" beside "a/b"). What such a
// put does is up to the driver, but it stores nothing wrong.
func CheckKey(key string) error {
	bad := func(why string) error { return fmt.Errorf("key %q: %s: %w", key, why, fs.ErrInvalid) }
	switch {
	case key == "":
		return bad("empty")
	case len(key) > MaxKey:
		return bad("too long")
	case !utf8.ValidString(key):
		return bad("not UTF-8")
	case strings.ContainsFunc(key, unicode.IsControl):
		return bad("control character")
	case strings.Contains(key, `\`):
		return bad("backslash")
	}
	for element := range strings.SplitSeq(key, "/") {
		switch {
		case element == "" || element == "." || element == "..":
			return bad("bad path element")
		case len(element) > 255:
			return bad("path element too long")
		}
	}
	return nil
}

// CheckRange returns fs.ErrInvalid for an offset that no object has.
func CheckRange(from int64) error {
	if from < 0 {
		return fmt.Errorf("range from %d: %w", from, fs.ErrInvalid)
	}
	return nil
}

// Exact rewinds b and returns a reader of its bytes that fails, instead of ending, when there
// are fewer or more of them than b.Size, and that fails when ctx ends. Drivers read bodies
// through it, so that half a body is never stored.
func Exact(ctx context.Context, b Body) (io.Reader, error) {
	if _, err := b.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind body: %w", err)
	}
	return &exact{ctx: ctx, b: b, left: b.Size()}, nil
}

type exact struct {
	ctx  context.Context
	b    Body
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	if err := context.Cause(e.ctx); err != nil {
		return 0, err
	}
	n, err := e.b.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return 0, fmt.Errorf("read body: longer than its %d bytes: %w", e.b.Size(), fs.ErrInvalid)
	case err == io.EOF && e.left > 0:
		return n, fmt.Errorf("read body: ends %d bytes before its %d: %w", e.left, e.b.Size(), fs.ErrInvalid)
	}
	return n, err
}
