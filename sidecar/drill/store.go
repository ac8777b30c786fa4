package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Store is the place of the archive, seen from outside: the harness starts and stops it and reads what is there.
type Store interface {
	URL() string   // for walbaton's --archive
	Env() []string // for walbaton's environment: credentials

	Objects(ctx context.Context) ([]Object, error) // all there are now
	Read(ctx context.Context, key string) ([]byte, error)

	start(ctx context.Context) error
	stop(ctx context.Context) error
}

// Object is one file of the archive. Mark changes when the object is written again.
type Object struct {
	Key  string
	Size int64
	Mark string
}

// folderStore is an archive in a folder.
type folderStore struct{ root, away string }

func newFolder(c *Cluster, name string) (*folderStore, error) {
	dir, err := c.folder(name)
	if err != nil {
		return nil, err
	}
	f := &folderStore{root: filepath.Join(dir, "archive"), away: filepath.Join(dir, "unmounted")}
	if err := os.Mkdir(f.root, 0o755); err != nil {
		return nil, err
	}
	return f, c.own(f.root)
}

func (f *folderStore) URL() string   { return "file://" + f.root }
func (f *folderStore) Env() []string { return nil }

// start brings the folder back, if it was away.
func (f *folderStore) start(context.Context) error {
	if !exists(f.away) {
		return nil
	}
	return errors.Join(os.Chmod(f.away, 0o755), os.Rename(f.away, f.root))
}

// stop renames the folder, as if its disk had been unmounted, and locks it: not even a program that has it open gets in.
func (f *folderStore) stop(context.Context) error {
	return errors.Join(os.Rename(f.root, f.away), os.Chmod(f.away, 0))
}

func (f *folderStore) Objects(context.Context) ([]Object, error) {
	var all []Object
	err := filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) { // a temporary file
			return nil
		}
		if err != nil {
			return err
		}
		key, err := filepath.Rel(f.root, path)
		mark := fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino, " ", info.ModTime())
		all = append(all, Object{Key: key, Size: info.Size(), Mark: mark})
		return err
	})
	return all, err
}

func (f *folderStore) Read(_ context.Context, key string) ([]byte, error) {
	return os.ReadFile(filepath.Join(f.root, key))
}

// minioStore is an archive in a bucket of a MinIO that the cluster runs.
type minioStore struct {
	c        *Cluster
	dir      string
	endpoint string
	client   *s3.Client
	server   *process
}

const (
	minioTool   = "minio@v0.0.0-20260212201848-7aac2a2c5b7c"
	minioKey    = "walbaton-drill"
	minioSecret = "only-on-loopback"
	bucket      = "wal"
)

func newMinIO(c *Cluster) (*minioStore, error) {
	dir, err := c.folder("store")
	if err != nil {
		return nil, err
	}
	m := &minioStore{c: c, dir: dir, endpoint: fmt.Sprintf("http://%s:%d", c.host(atStore), c.port(portMinIO))}
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.Mkdir(data, 0o755), c.own(data)); err != nil {
		return nil, err
	}
	// User postgres may not search the home of root, where the tool is.
	binary, err := toolPath(minioTool)
	if err != nil {
		return nil, err
	}
	if err := Run(exec.Command("cp", "--reflink=auto", binary, filepath.Join(dir, "minio"))); err != nil {
		return nil, err
	}
	m.client = s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(m.endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(minioKey, minioSecret, ""),
	})
	return m, nil
}

func (m *minioStore) URL() string {
	return fmt.Sprintf("s3://%s/archive?endpoint=%s&path_style=true", bucket, m.endpoint)
}

func (m *minioStore) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + minioKey, "AWS_SECRET_ACCESS_KEY=" + minioSecret, "AWS_REGION=us-east-1"}
}

func (m *minioStore) start(ctx context.Context) (err error) {
	m.server, err = m.c.spawn("minio", m.dir, []string{"MINIO_ROOT_USER=" + minioKey, "MINIO_ROOT_PASSWORD=" + minioSecret, "MINIO_BROWSER=off", "MINIO_PROMETHEUS_AUTH_TYPE=public"},
		filepath.Join(m.dir, "minio"), "server", "--quiet", "--address", strings.TrimPrefix(m.endpoint, "http://"), filepath.Join(m.dir, "data"))
	if err != nil {
		return err
	}
	err = until(ctx, 60*time.Second, "MinIO is ready", func(ctx context.Context) error {
		code, body, err := get(ctx, m.endpoint+"/minio/health/ready")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := m.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(bucket)}); err == nil {
		return nil
	}
	_, err = m.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
	return err
}

func (m *minioStore) stop(context.Context) error {
	m.server.kill()
	return nil
}

const minioPrefix = "archive/"

func (m *minioStore) Objects(ctx context.Context) ([]Object, error) {
	var all []Object
	pages := s3.NewListObjectsV2Paginator(m.client, &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String(minioPrefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			all = append(all, Object{
				Key: strings.TrimPrefix(aws.ToString(o.Key), minioPrefix), Size: aws.ToInt64(o.Size),
				Mark: aws.ToString(o.ETag) + aws.ToTime(o.LastModified).String(),
			})
		}
	}
	return all, nil
}

func (m *minioStore) Read(ctx context.Context, key string) ([]byte, error) {
	o, err := m.client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(minioPrefix + key)})
	if err != nil {
		return nil, err
	}
	defer o.Body.Close()
	return io.ReadAll(o.Body)
}

// mirror returns a folder with all that is in the archive, for a shell: the archive itself, or a copy below dir.
func mirror(ctx context.Context, s Store, dir string) (string, error) {
	if folder, ok := strings.CutPrefix(s.URL(), "file://"); ok {
		return folder, nil
	}
	all, err := s.Objects(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range all {
		path := filepath.Join(dir, o.Key)
		text, err := s.Read(ctx, o.Key)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// toolPath finds a server that .ci/build-tools built.
func toolPath(name string) (string, error) {
	dir := os.Getenv("WALBATON_TOOLS")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".cache/walbaton/tools")
	}
	path := filepath.Join(dir, name)
	if !exists(path) {
		return "", fmt.Errorf("no %s: .ci/build-tools builds it", path)
	}
	return path, nil
}
