package servers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// By the names and versions of .ci/build-tools.
const (
	fakeGCSBinary = "fake-gcs-server@v1.56.1"
	azuriteFolder = "azurite@3.35.0"
)

// The account that every Azurite has, and its key: both are public.
const (
	AzureAccount    = "devstoreaccount1"
	AzureAccountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// FakeGCS starts fake-gcs-server over its backend of files: Google's JSON API, with conditions and checksums, without accounts and
// permissions. An element of a key has at most 234 bytes there.
func FakeGCS(ctx context.Context, o Options) (*Server, error) {
	return startFakeGCS(ctx, o, "-backend", "filesystem", "-filesystem-root")
}

// FakeGCSInMemory starts one that takes every key, and forgets all when it ends.
func FakeGCSInMemory(ctx context.Context, o Options) (*Server, error) {
	s, err := startFakeGCS(ctx, o, "-backend", "memory", "-data")
	if err != nil {
		return nil, err
	}
	for _, bucket := range o.Buckets {
		if err := s.makeBucket(ctx, bucket); err != nil {
			return nil, fmt.Errorf("start %s: %w", fakeGCSBinary, errors.Join(err, s.Kill()))
		}
	}
	return s, nil
}

func startFakeGCS(ctx context.Context, o Options, backend ...string) (*Server, error) {
	return start(ctx, o, fakeGCSBinary, "/_internal/healthcheck", func(o Options, c certificates) *exec.Cmd {
		host, port, _ := net.SplitHostPort(o.Address)
		scheme, keys := "http", []string(nil)
		if o.TLS {
			scheme, keys = "https", []string{"-cert-location", c.cert, "-private-key-location", c.key}
		}
		args := append(backend, dataDir(o), "-scheme", scheme, "-host", host, "-port", port,
			"-public-host", o.Address, "-external-url", scheme+"://"+o.Address, "-log-level", "warn")
		return exec.Command(binary(fakeGCSBinary), append(args, keys...)...)
	})
}

func (s *Server) makeBucket(ctx context.Context, name string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint+"/storage/v1/b?project=test", strings.NewReader(fmt.Sprintf(`{"name": %q}`, name)))
	if err != nil {
		return err
	}
	answer, err := unchecked().Do(r)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusConflict { // a folder of the data is a bucket already
		return fmt.Errorf("make bucket %s: %s", name, answer.Status)
	}
	return nil
}

// Azurite starts the blob service of Microsoft's emulator, with the containers that o calls buckets. It has shared keys and SAS tokens.
// It is not asked for the version of its API: the SDK's is newer, and what we use of it is old.
func Azurite(ctx context.Context, o Options) (*Server, error) {
	s, err := start(ctx, Options{Dir: o.Dir, Address: o.Address, TLS: o.TLS}, azuriteFolder, "/", func(o Options, c certificates) *exec.Cmd {
		host, port, _ := net.SplitHostPort(o.Address)
		args := []string{filepath.Join(binary(azuriteFolder), "node_modules", "azurite", "dist", "src", "blob", "main.js"),
			"--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobHost", host, "--blobPort", port, "-l", dataDir(o)}
		if o.TLS {
			args = append(args, "--cert", c.cert, "--key", c.key)
		}
		return exec.Command("node", args...)
	})
	if err != nil {
		return nil, err
	}
	s.Endpoint += "/" + AzureAccount
	for _, name := range o.Buckets {
		if err := s.makeContainer(ctx, name); err != nil {
			return nil, fmt.Errorf("start %s: %w", azuriteFolder, errors.Join(err, s.Kill()))
		}
	}
	return s, nil
}

// Container is a client for what the driver does not do.
func (s *Server) Container(name string) (*container.Client, error) {
	key, err := container.NewSharedKeyCredential(AzureAccount, AzureAccountKey)
	if err != nil {
		return nil, err
	}
	return container.NewClientWithSharedKeyCredential(s.Endpoint+"/"+name, key, &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: unchecked()}})
}

func (s *Server) makeContainer(ctx context.Context, name string) error {
	c, err := s.Container(name)
	if err != nil {
		return err
	}
	if _, err = c.Create(ctx, nil); bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		return nil
	}
	return err
}

// SAS is a token for a container of Azurite that permits what the letters say, for an hour.
func (s *Server) SAS(name, permissions string) (string, error) {
	key, err := container.NewSharedKeyCredential(AzureAccount, AzureAccountKey)
	if err != nil {
		return "", err
	}
	q, err := sas.BlobSignatureValues{Version: "2021-10-04", Protocol: sas.ProtocolHTTPSandHTTP, ExpiryTime: time.Now().UTC().Add(time.Hour),
		Permissions: permissions, ContainerName: name}.SignWithSharedKey(key)
	return q.Encode(), err
}

// unchecked is a client for servers of ours: no secret of anybody's is sent, so no certificate is checked.
func unchecked() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

// CloudURL is that of a store in a bucket of FakeGCS (gcs://bucket), or in a container of Azurite (azure://account/container).
func (s *Server) CloudURL(place, prefix string) string {
	q := url.Values{"endpoint": {s.Endpoint}}
	if s.CAFile != "" {
		q.Set("ca_file", s.CAFile)
	}
	return place + "/" + (&url.URL{Path: prefix}).String() + "?" + q.Encode()
}
