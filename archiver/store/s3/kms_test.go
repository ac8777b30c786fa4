//go:build servers

package s3_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// kms is the environment of a MinIO with one key.
func kms(name string, key byte) []string {
	return []string{"MINIO_KMS_SECRET_KEY=" + name + ":" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{key}, 32))}
}

// bare is a client that shows what the driver does not.
func bare(server *servers.Server) *awss3.Client {
	return awss3.New(awss3.Options{BaseEndpoint: &server.Endpoint, UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(servers.AccessKey, servers.SecretKey, "")})
}

// Objects are encrypted the way that the URL says, small and large ones. Without the key, or with another, every
// one of them says so in one line, and never that it is not there.
func TestEncryption(t *testing.T) {
	o := servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}, Env: kms("wal", 1)}
	server, err := servers.MinIO(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { server.Stop() }()
	o.Address = server.Address
	openWith := func(query string) *s3.Store {
		s, err := s3.Open(t.Context(), server.URL("wal", "")+query, options)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sizes := map[string]int{"small": 1000, "large": 6 << 20}
	ways := map[string]struct {
		query string
		sse   types.ServerSideEncryption
	}{
		"none": {"", ""}, "s3": {"&sse=AES256", types.ServerSideEncryptionAes256},
		"kms": {"&sse=aws:kms", types.ServerSideEncryptionAwsKms}, "named": {"&sse=aws:kms&sse_kms_key_id=wal", types.ServerSideEncryptionAwsKms},
	}
	for way, want := range ways {
		s := openWith(want.query)
		for size, n := range sizes {
			key := way + "/" + size
			if err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, n))); err != nil {
				t.Fatal(err)
			}
			out, err := bare(server).HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: aws.String("wal"), Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			if out.ServerSideEncryption != want.sse {
				t.Errorf("%s: got encryption %q, want %q", key, out.ServerSideEncryption, want.sse)
			}
			if id := aws.ToString(out.SSEKMSKeyId); want.sse == types.ServerSideEncryptionAwsKms && !strings.Contains(id, "wal") {
				t.Errorf("%s: got the KMS key %q", key, id)
			}
		}
	}
	const lost = "the server cannot use the KMS key: it is lost, disabled, another one than it was, or not for us ("
	check := func(what string, err error) {
		t.Helper()
		if err == nil || isKind(err) || !strings.Contains(err.Error(), lost) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line without a kind that has %q", what, err, lost)
		}
	}
	check("put with an unknown key", openWith("&sse=aws:kms&sse_kms_key_id=other").Put(t.Context(), "new", strings.NewReader("data")))
	check("large put with an unknown key", openWith("&sse=aws:kms&sse_kms_key_id=other").Put(t.Context(), "new", bytes.NewReader(make([]byte, 6<<20))))

	for name, env := range map[string][]string{"another key of that name": kms("wal", 2), "another key": kms("another", 1), "no key": nil} {
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		o.Env = env
		if server, err = servers.MinIO(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		s := openWith("")
		for _, way := range slices.Sorted(maps.Keys(ways)) {
			for size := range sizes {
				key := way + "/" + size
				err := read(s.Get(t.Context(), key, 0, 500))
				if way == "none" {
					if err != nil {
						t.Errorf("%s: %s: %v", name, key, err)
					}
					continue
				}
				check(name+": get "+key, err)
			}
		}
	}
}

// A bucket with versions, or with an object lock, keeps the first writer's object, and says that it keeps what is deleted.
func TestVersions(t *testing.T) {
	for name, run := range map[string]starter{"versitygw": servers.VersityGW, "MinIO": servers.MinIO} {
		t.Run(name, func(t *testing.T) {
			server, err := run(t.Context(), servers.Options{Dir: t.TempDir(), Buckets: []string{"wal"}, Versions: true})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Stop()
			hides := func(bucket string, want bool) {
				t.Helper()
				if got, err := store.Hides(t.Context(), openOn(t, server, bucket, "", options)); got != want || err != nil {
					t.Errorf("%s: got %v, %v, want %v", bucket, got, err, want)
				}
			}
			hides("wal", false)
			set := func(bucket string, status types.BucketVersioningStatus) {
				t.Helper()
				_, err := bare(server).PutBucketVersioning(t.Context(), &awss3.PutBucketVersioningInput{Bucket: &bucket,
					VersioningConfiguration: &types.VersioningConfiguration{Status: status}})
				if err != nil {
					t.Fatal(err)
				}
			}
			set("wal", types.BucketVersioningStatusEnabled)
			hides("wal", true)
			locked := "locked"
			if _, err := bare(server).CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: &locked, ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
				t.Fatal(err)
			}
			_, err = bare(server).PutObjectLockConfiguration(t.Context(), &awss3.PutObjectLockConfigurationInput{Bucket: &locked,
				ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled,
					Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Days: aws.Int32(1), Mode: types.ObjectLockRetentionModeCompliance}}}})
			if err != nil {
				t.Fatal(err)
			}
			hides(locked, true)
			for _, bucket := range []string{"wal", locked} {
				s := openOn(t, server, bucket, "", options)
				if err := store.Prove(t.Context(), s, "scope/probe/n1", 16<<20); err != nil {
					t.Errorf("%s: %v", bucket, err)
				}
				if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
					t.Error(err)
				}
				if err := s.Delete(t.Context(), "key"); err != nil {
					t.Errorf("%s: delete: %v", bucket, err)
				}
				versions, err := bare(server).ListObjectVersions(t.Context(), &awss3.ListObjectVersionsInput{Bucket: &bucket, Prefix: aws.String("key")})
				if err != nil || len(versions.Versions) != 1 || len(versions.DeleteMarkers) != 1 {
					t.Errorf("%s: got %s, %v, want a version behind a delete marker", bucket, describe(versions), err)
				}
				// versitygw takes the delete marker for the object here, and for none when it is read.
				err = s.Put(t.Context(), "key", strings.NewReader("again"))
				if name == "MinIO" && err != nil || name != "MinIO" && !errors.Is(err, fs.ErrExist) {
					t.Errorf("%s: put after a delete: %v", bucket, err)
				}
			}
			set("wal", types.BucketVersioningStatusSuspended)
			hides("wal", true)
		})
	}
}

func describe(v *awss3.ListObjectVersionsOutput) string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d versions and %d delete markers", len(v.Versions), len(v.DeleteMarkers))
}

// A storage class that the server does not have is its own clear error.
func TestStorageClass(t *testing.T) {
	server := start(t, servers.MinIO, false)
	for class, want := range map[string]string{"REDUCED_REDUNDANCY": "", "COLD": "InvalidStorageClass"} {
		s, err := s3.Open(t.Context(), server.URL("wal", class)+"&storage_class="+class, options)
		if err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]int{"small": 1000, "large": 6 << 20} {
			err := s.Put(t.Context(), name, bytes.NewReader(make([]byte, size)))
			if want == "" && err != nil || want != "" && (err == nil || isKind(err) || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: got %v, want %q", class, err, want)
			}
			out, err := bare(server).HeadObject(t.Context(), &awss3.HeadObjectInput{Bucket: aws.String("wal"), Key: aws.String(class + "/" + name)})
			if want == "" && (err != nil || string(out.StorageClass) != class) {
				t.Errorf("%s: got class %q, %v", class, out.StorageClass, err)
			}
		}
	}
}
