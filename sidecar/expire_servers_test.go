//go:build servers

package main

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// TestExpireOnS3: expire on a real MinIO. A bucket with versions or an object lock keeps what is deleted, and that is said; a user with the documented policy of a
// sidecar alone raises the floor and is told which right is missing; with the policy of who deletes it finishes.
func TestExpireOnS3(t *testing.T) {
	server, err := servers.MinIO(t.Context(), servers.Options{Dir: t.TempDir(), Buckets: []string{"wal", "versions"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := awss3.New(awss3.Options{BaseEndpoint: &server.Endpoint, Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(servers.AccessKey, servers.SecretKey, "")})
	_, err = admin.PutBucketVersioning(t.Context(), &awss3.PutBucketVersioningInput{Bucket: aws.String("versions"),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: aws.String("locked"), ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	_, err = admin.PutObjectLockConfiguration(t.Context(), &awss3.PutObjectLockConfigurationInput{Bucket: aws.String("locked"),
		ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Days: aws.Int32(1), Mode: types.ObjectLockRetentionModeCompliance}}}})
	if err != nil {
		t.Fatal(err)
	}
	full := func(bucket string) store.Store {
		s, err := s3.Open(t.Context(), server.URL(bucket, ""), s3.Options{AccessKey: servers.AccessKey, SecretKey: servers.SecretKey})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for bucket, hidden := range map[string]bool{"versions": true, "locked": true} {
		a := fillArchive(t, full(bucket))
		done, err := expireHalf(t, a)
		if err != nil || done.Deleted != 3 || done.Hidden != hidden {
			now, why := store.Hides(t.Context(), a.Store())
			t.Errorf("%s: %+v, %v; asked again: %v, %v", bucket, done, err, now, why)
		}
		rep, err := a.Audit(t.Context(), archiver.AuditOptions{})
		if err != nil || !rep.Whole || rep.Count.Segments != 3 {
			t.Errorf("%s: %+v, %v", bucket, rep, err)
		}
	}
	fillArchive(t, full("wal"))
	as := func(policy string) *archiver.Archive {
		role, err := server.AssumeRole(t.Context(), documentedPolicy(t, policy))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range role.Environ() {
			t.Setenv(name, value)
		}
		s, err := s3.Open(t.Context(), server.URL("wal", ""), s3.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := archiver.OpenArchive(t.Context(), s, "shop", testSystemID)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := as("a sidecar")
	done, err := expireHalf(t, a)
	if !errors.Is(err, archiver.ErrMayNotDelete) || done.Deleted != 0 || len(done.Raised) != 1 || !strings.Contains(withExpireHint(err).Error(), "docs/stores.md") {
		t.Errorf("who may not delete: %+v, %v", done, err)
	}
	if !a.BelowFloor(wal.SegmentName(wal.Segment{Timeline: 1, Size: 1 << 20, No: 2})) {
		t.Error("the floor does not count")
	}
	if done, err = expireHalf(t, as("who deletes")); err != nil || done.Deleted != 3 || done.Hidden {
		t.Errorf("who may: %+v, %v", done, err)
	}
}

// documentedPolicy is one of docs/stores.md.
func documentedPolicy(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/stores.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)\*\*Policy of ` + name + "\\.\\*\\*\\s*```json\n(.*?)```").FindStringSubmatch(string(page))
	if m == nil {
		t.Fatalf("docs/stores.md has no policy of %s", name)
	}
	return strings.ReplaceAll(m[1], "BUCKET", "wal")
}

// fillArchive makes an archive of six segments.
func fillArchive(t *testing.T, s store.Store) *archiver.Archive {
	t.Helper()
	w := waltest.New(testSystemID, 1<<20)
	w.Fill(6)
	id := archiver.Identity{Scope: "shop", SystemID: testSystemID, SegmentSize: 1 << 20, Member: "n1", Floor: archiver.Floor{Timeline: 1, LSN: 1 << 20}}
	if err := archiver.CreateArchive(t.Context(), s, id); err != nil {
		t.Fatal(err)
	}
	a, err := archiver.OpenArchive(t.Context(), s, "shop", testSystemID)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(seal.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range w.Full() {
		plain := w.Segment(g)
		packed, err := sealer.Pack(strings.NewReader(string(plain)), int64(len(plain)))
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := packed.Seal(seal.Header{Name: g.String(), SystemID: testSystemID, Member: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Put(t.Context(), a.Key(wal.SegmentName(g)), sealed); err != nil {
			t.Fatal(err)
		}
		sealed.Close()
		packed.Close()
	}
	return a
}

// expireHalf keeps the last three of the six.
func expireHalf(t *testing.T, a *archiver.Archive) (archiver.Expired, error) {
	t.Helper()
	p, err := a.PlanExpire(t.Context(), archiver.ExpireOptions{Before: archiver.Cutoff{LSN: 4 << 20}, WithoutBackups: true})
	if err != nil {
		t.Fatal(err)
	}
	return a.Expire(t.Context(), p, archiver.Expirer{Held: func(context.Context) error { return nil }, By: "test"})
}
