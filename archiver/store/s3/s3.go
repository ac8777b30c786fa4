// Package s3 keeps an archive in a bucket of Amazon S3, or of a server that speaks its
// protocol and honours conditional writes (MinIO, versitygw, Ceph, R2).
//
//	s3://bucket/prefix?endpoint=https://minio.example:9000&ca_file=/etc/ssl/minio.pem
//
// The keys of the query, all optional:
//
//	endpoint         URL of a server that is not Amazon's
//	region           without it AWS_REGION or the profile's; with an endpoint us-east-1
//	path_style       true: http://host/bucket/key; the default with an endpoint
//	ca_file          PEM file of certificates to trust besides the system's
//	profile          of the shared AWS configuration files
//	access_key_file, secret_key_file   files with the two halves of a key, read again every minute
//	sse              AES256, aws:kms or aws:kms:dsse: how the server encrypts objects; without it as the bucket says
//	sse_kms_key_id   with aws:kms, which of its keys; without it the default one
//	storage_class    such as STANDARD_IA, of segments and all else; without it STANDARD
//	requester_pays   true: we pay for our requests to another's bucket
//
// Without key files the credentials come from where the AWS SDK looks for them: environment, shared files,
// web identity, container and instance roles. Requests go through the proxy that HTTPS_PROXY or HTTP_PROXY names. The bucket is
// never created. docs/stores.md has the permissions. A lifecycle
// rule AbortIncompleteMultipartUpload removes what a killed upload of a large segment leaves.
//
// # Written once
//
// A body of up to 64 MiB is one PutObject with If-None-Match: *, a larger one a multipart upload whose
// completion has the same condition. Every part carries its CRC-32, which the server checks.
//
// 412 means taken. Any other answer, or none, to a conditional write means "perhaps": losers of a race often see
// a reset connection, and Amazon may say 409. Then the driver looks. It reports success only
// when the stored bytes are the body's, all of them compared; fs.ErrExist when they are not; and what
// went wrong, for another try, when nothing is there or it could not look.
//
// The SDK's own tries are off: store.Retry decides. Keys are listed in byte order, as S3 does;
// a server that lists otherwise (S3 Express) is refused.
package s3

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// What the sizes of the parts of a multipart upload are, in bytes. Amazon wants parts of 5 MiB and more,
// except for the last, and at most 10,000 of them.
const (
	DefaultMultipartAbove = 64 << 20
	DefaultPartSize       = 16 << 20
)

// maxPrefix bounds the prefix so that prefix, slash and the longest key fit into S3's 1024 bytes.
const maxPrefix = 1024 - 1 - store.MaxKey

// Options are what the URL does not say. The zero value is right.
type Options struct {
	// AccessKey and SecretKey, when given, are used instead of all other credentials.
	AccessKey, SecretKey string
	// MultipartAbove is the size in bytes of the largest body that is put in one request. 0 means DefaultMultipartAbove.
	MultipartAbove int64
	// PartSize is the size in bytes of a part of a larger one. 0 means DefaultPartSize.
	PartSize int64
}

// Store is a bucket, or the keys of a bucket below a prefix.
type Store struct {
	client   *awss3.Client
	bucket   string
	prefix   string // empty, or ends in a slash
	url      string
	above    int64
	partSize int64
	extras   extras
}

// target is a parsed URL.
type target struct {
	bucket, prefix, endpoint, region  string
	caFile, profile, keyFile, secFile string
	pathStyle                         bool
	extras                            extras
}

// Open returns the store that rawURL names. It reads configuration and asks no server.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	to, err := parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	cfg, err := load(ctx, to, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", to, err)
	}
	s := &Store{bucket: to.bucket, url: to.String(), above: o.MultipartAbove, partSize: o.PartSize, extras: to.extras}
	if to.prefix != "" {
		s.prefix = to.prefix + "/"
	}
	if s.above == 0 {
		s.above = DefaultMultipartAbove
	}
	if s.partSize == 0 {
		s.partSize = DefaultPartSize
	}
	s.client = awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		o.UsePathStyle = to.pathStyle
		if to.endpoint != "" {
			o.BaseEndpoint = aws.String(to.endpoint)
		}
		// Said here because New without a loaded configuration would send no checksum at all.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		o.DisableLogOutputChecksumValidationSkipped = true
		o.Retryer = aws.NopRetryer{}
	})
	return s, nil
}

func parse(rawURL string) (target, error) {
	var to target
	fields := map[string]*string{"endpoint": &to.endpoint, "region": &to.region, "ca_file": &to.caFile, "profile": &to.profile,
		"access_key_file": &to.keyFile, "secret_key_file": &to.secFile, "path_style": new(string),
		"sse": new(string), "sse_kms_key_id": new(string), "storage_class": new(string), "requester_pays": new(string)}
	at, err := remote.Parse(rawURL, "s3://bucket/prefix", "access_key_file and secret_key_file, or the environment", fields)
	switch {
	case err != nil:
		return target{}, err
	case at.Scheme != "s3":
		return target{}, fmt.Errorf("%q is not like s3://bucket/prefix", at.Scheme+"://"+at.Host)
	case len(at.Path) > maxPrefix:
		return target{}, fmt.Errorf("prefix: longer than %d bytes", maxPrefix)
	}
	to.bucket, to.prefix = at.Host, at.Path
	to.pathStyle = to.endpoint != ""
	if style := *fields["path_style"]; style != "" {
		if to.pathStyle, err = strconv.ParseBool(style); err != nil {
			return target{}, fmt.Errorf("path_style %q is neither true nor false", style)
		}
	}
	if to.extras, err = parseExtras(*fields["sse"], *fields["sse_kms_key_id"], *fields["storage_class"], *fields["requester_pays"]); err != nil {
		return target{}, err
	}
	if (to.keyFile == "") != (to.secFile == "") {
		return target{}, errors.New("access_key_file and secret_key_file go together")
	}
	if to.endpoint == "" {
		return to, nil
	}
	return to, remote.CheckEndpoint(to.endpoint, true)
}

// String is the URL without what is only about access.
func (to target) String() string {
	u := url.URL{Scheme: "s3", Host: to.bucket}
	if to.prefix != "" {
		u.Path = "/" + to.prefix
	}
	if to.endpoint != "" {
		u.RawQuery = "endpoint=" + to.endpoint
	}
	return u.String()
}

func load(ctx context.Context, to target, o Options) (aws.Config, error) {
	pool, err := remote.Authorities(to.caFile)
	if err != nil {
		return aws.Config{}, err
	}
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}), // it would write to stderr by itself; what matters comes back as an error
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { remote.Tune(t, pool) })),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
	}
	if to.profile != "" {
		options = append(options, config.WithSharedConfigProfile(to.profile))
	}
	if to.region != "" {
		options = append(options, config.WithRegion(to.region))
	}
	switch {
	case o.AccessKey != "":
		keys := aws.Credentials{AccessKeyID: o.AccessKey, SecretAccessKey: o.SecretKey, Source: "options"}
		options = append(options, config.WithCredentialsProvider(aws.CredentialsProviderFunc(
			func(context.Context) (aws.Credentials, error) { return keys, nil })))
	case to.keyFile != "":
		options = append(options, config.WithCredentialsProvider(aws.NewCredentialsCache(keyFiles(to.keyFile, to.secFile))))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	if cfg.Region == "" {
		if to.endpoint == "" && cfg.BaseEndpoint == nil {
			return aws.Config{}, errors.New("its region is not known: add ?region=NAME, or set AWS_REGION")
		}
		cfg.Region = "us-east-1" // what most servers that have none expect in a signature
	}
	return cfg, nil
}

// keyFiles reads the credentials again once they are a minute old, so that a rotated key needs no restart.
func keyFiles(access, secret string) aws.CredentialsProviderFunc {
	return func(context.Context) (aws.Credentials, error) {
		var halves [2]string
		for i, name := range []string{access, secret} {
			data, err := os.ReadFile(name)
			if err != nil {
				return aws.Credentials{}, err
			}
			if halves[i] = strings.TrimSpace(string(data)); halves[i] == "" {
				return aws.Credentials{}, fmt.Errorf("read %s: empty", name)
			}
		}
		return aws.Credentials{AccessKeyID: halves[0], SecretAccessKey: halves[1], Source: "files",
			CanExpire: true, Expires: time.Now().Add(time.Minute)}, nil
	}
}

func (s *Store) String() string { return s.url }

// Variants implements store.Varied: a single put, and the completion of a multipart upload when
// bodies can be large enough for one.
func (s *Store) Variants(largest int64) []store.Variant {
	single, multi := *s, *s
	single.above, multi.above = math.MaxInt64, 0
	variants := []store.Variant{{Name: "single put", Store: &single}}
	if largest > s.above {
		variants = append(variants, store.Variant{Name: "multipart completion", Store: &multi})
	}
	return variants
}
