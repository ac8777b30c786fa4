// Package gcs keeps an archive in a bucket of Google Cloud Storage.
//
//	gcs://bucket/prefix?credentials_file=/etc/walbaton/google.json
//
// gs:// means the same. The keys of the query, all optional:
//
//	credentials_file   JSON of a service account, of workload identity federation, or of another kind that Google's tools write
//	endpoint           URL of a server that is not https://storage.googleapis.com: a private endpoint, or an emulator
//	ca_file            PEM file of certificates to trust besides the system's
//
// Without credentials_file they are Google's application default credentials: GOOGLE_APPLICATION_CREDENTIALS, the
// file of gcloud, or the metadata server (a machine's service account, workload identity of Kubernetes). They are looked for with the first request. An
// emulator gets none: STORAGE_EMULATOR_HOST, or an endpoint with http, since a token is not sent in the clear. The bucket is never created.
// Needed permissions: storage.objects.create, .get, .list, and .delete for probes and expire; storage.buckets.get to
// see whether the bucket keeps what is deleted.
//
// # Written once
//
// A body of up to 64 MiB is one request, a larger one a resumable upload in chunks of 16 MiB; both with ifGenerationMatch=0, and with the
// body's CRC-32C, which the server checks. An upload that breaks off leaves nothing that costs.
//
// 412 means taken. A failure of the server, or no answer, means "perhaps": then the driver looks (package remote). After a 403 which says that
// storage.objects.delete is lacking, as it is for who would overwrite, it asks whether the name is taken.
//
// The answer 404 does not say reliably what is absent. "No such object" is believed when the bucket then lists nothing under that
// name, which is one more request for each object that is not there.
//
// The library's own tries are off: store.Retry decides.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"strings"

	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// DefaultResumableAbove is the size in bytes of the largest body that is put in one request.
const DefaultResumableAbove = 64 << 20

const defaultEndpoint = "https://storage.googleapis.com"

// maxPrefix bounds the prefix so that prefix, slash and the longest key fit into the 1024 bytes of an object's name.
const maxPrefix = 1024 - 1 - store.MaxKey

// Options are what the URL does not say. The zero value is right.
type Options struct {
	// ResumableAbove is the size in bytes of the largest body that is put in one request. 0 means DefaultResumableAbove.
	ResumableAbove int64
}

// Store is a bucket, or the keys of a bucket below a prefix.
type Store struct {
	api    *storage.Service
	bucket string
	prefix string // empty, or ends in a slash
	url    string
	above  int64
}

// target is a parsed URL.
type target struct {
	remote.Address
	endpoint, credentials, caFile string
	anonymous                     bool
}

// Open returns the store that rawURL names. It reads configuration and asks no server.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	to, err := parse(rawURL, os.Getenv("STORAGE_EMULATOR_HOST"))
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	s := &Store{bucket: to.Host, url: to.String(), above: o.ResumableAbove}
	if to.Path != "" {
		s.prefix = to.Path + "/"
	}
	if s.above == 0 {
		s.above = DefaultResumableAbove
	}
	client, err := newClient(to)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", to, err)
	}
	endpoint := to.endpoint
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	s.api, err = storage.NewService(ctx, option.WithHTTPClient(client), option.WithEndpoint(endpoint+"/storage/v1/"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", to, err)
	}
	s.api.UserAgent = "walbaton"
	return s, nil
}

// Google Cloud documentation, "Bucket names".
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)

// parse reads a URL. emulator is STORAGE_EMULATOR_HOST, as Google's own libraries know it: host:port, or a URL.
func parse(rawURL, emulator string) (target, error) {
	var to target
	var err error
	to.Address, err = remote.Parse(rawURL, "gcs://bucket/prefix", "credentials_file, or the environment",
		map[string]*string{"endpoint": &to.endpoint, "credentials_file": &to.credentials, "ca_file": &to.caFile})
	switch {
	case err != nil:
		return target{}, err
	case to.Scheme != "gcs" && to.Scheme != "gs":
		return target{}, fmt.Errorf("%q is not like gcs://bucket/prefix", to.Scheme+"://"+to.Host)
	case !bucketName.MatchString(to.Host):
		return target{}, fmt.Errorf("%q cannot be the name of a bucket: it has 3 and more lower-case letters, digits, dots, hyphens and underscores", to.Host)
	case len(to.Path) > maxPrefix:
		return target{}, fmt.Errorf("prefix: longer than %d bytes", maxPrefix)
	}
	if to.endpoint == "" && emulator != "" {
		if to.endpoint = emulator; !strings.Contains(emulator, "://") {
			to.endpoint = "http://" + emulator
		}
		to.anonymous = true
	}
	if to.endpoint == "" {
		return to, nil
	}
	if err := remote.CheckEndpoint(to.endpoint, false); err != nil {
		return target{}, err
	}
	to.endpoint = strings.TrimRight(to.endpoint, "/")
	if strings.HasPrefix(to.endpoint, "http:") {
		to.anonymous = true
	}
	if to.anonymous && to.credentials != "" {
		return target{}, errors.New("credentials_file is of no use: an emulator, or an endpoint with http, gets no credentials")
	}
	return to, nil
}

// String is the URL without what is only about access.
func (to target) String() string {
	s := "gcs://" + to.Host
	if to.Path != "" {
		s += "/" + to.Path
	}
	if to.endpoint != "" {
		s += "?endpoint=" + to.endpoint
	}
	return s
}

func newClient(to target) (*http.Client, error) {
	pool, err := remote.Authorities(to.caFile)
	if err != nil {
		return nil, err
	}
	transport := new(http.Transport)
	remote.Tune(transport, pool)
	transport.DisableCompression = true // a compressed answer has no length to check
	if to.anonymous {
		return &http.Client{Transport: transport}, nil
	}
	identity, err := newIdentity(to.credentials, transport)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: identity}, nil
}

func (s *Store) String() string { return s.url }

// Variants implements store.Varied: a single request, and a resumable upload when bodies can be large enough for one.
func (s *Store) Variants(largest int64) []store.Variant {
	single, resumable := *s, *s
	single.above, resumable.above = math.MaxInt64, -1
	variants := []store.Variant{{Name: "single put", Store: &single}}
	if largest > s.above {
		variants = append(variants, store.Variant{Name: "resumable upload", Store: &resumable})
	}
	return variants
}

// Hides implements store.Hider: a bucket with soft delete, which new ones have for seven days unless their makers decide otherwise, or with
// versions keeps what is deleted for a while. Needed permission: storage.buckets.get.
func (s *Store) Hides(ctx context.Context) (bool, error) {
	b, err := s.api.Buckets.Get(s.bucket).Fields("name", "versioning", "softDeletePolicy").Context(ctx).Do()
	if err != nil {
		return false, s.fail(ctx, "get properties of", s.bucket, s.rootless(err))
	}
	versions := b.Versioning != nil && b.Versioning.Enabled
	return versions || b.SoftDeletePolicy != nil && b.SoftDeletePolicy.RetentionDurationSeconds > 0, nil
}
