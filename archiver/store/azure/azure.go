// Package azure keeps an archive in a container of Azure Blob Storage.
//
//	azure://account/container/prefix?sas_token_file=/etc/walbaton/sas
//
// azblob:// means the same. The keys of the query, all optional:
//
//	endpoint           URL of the account's blob service, when it is not https://account.blob.core.windows.net: another cloud, a private
//	                   endpoint, an emulator
//	ca_file            PEM file of certificates to trust besides the system's
//	account_key_file, sas_token_file   file with an account key or a SAS token, read again every minute
//
// Without a key or a token the credentials come from where Azure's SDK looks for them: environment, workload identity, managed identity, and the tools
// of developers. They are sent over https only. The container is never created. Needed permissions, as a SAS token spells them: r, l, c; w for bodies above
// 64 MiB; d for probes and expire.
//
// # Written once
//
// A body of up to 64 MiB is one Put Blob with If-None-Match: *, a larger one blocks of 16 MiB and a Put Block List with the same condition. Every request
// carries an MD5, which the server checks, and the blob keeps that of the whole. Uncommitted blocks belong to a name and not to a writer,
// so the names of blocks are random: a writer can only commit its own. Azure removes within a week what a killed upload leaves.
//
// 409 BlobAlreadyExists means taken. A failure of the server, or no answer, means "perhaps": then the driver looks (package remote); so it does after 400
// InvalidBlockList, since who commits first drops the blocks of the others. After 403, which a token without w gets for a name that is taken,
// it asks whether the name is.
//
// The SDK's own tries are off: store.Retry decides.
package azure

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/remote"
)

// The sizes in bytes of the largest body that is put in one request, and of a block of a larger one. Azure takes
// up to 50,000 blocks.
const (
	DefaultBlocksAbove = 64 << 20
	DefaultBlockSize   = 16 << 20
)

// maxPrefix bounds the prefix so that prefix, slash and the longest key fit into the 1024 characters of a blob's name.
const maxPrefix = 1024 - 1 - store.MaxKey

// Options are what the URL does not say. The zero value is right.
type Options struct {
	// AccountKey or SASToken, when given and when the URL names no file, is used instead of all other credentials.
	AccountKey, SASToken string
	// BlocksAbove is the size in bytes of the largest body that is put in one request. 0 means DefaultBlocksAbove.
	BlocksAbove int64
	// BlockSize is the size in bytes of a block of a larger one. 0 means DefaultBlockSize.
	BlockSize int64
}

// Store is a container, or the keys of a container below a prefix.
type Store struct {
	container *container.Client
	service   *service.Client
	account   string
	name      string // the container's
	prefix    string // empty, or ends in a slash
	url       string
	above     int64
	blockSize int64
}

// target is a parsed URL.
type target struct {
	account, container, prefix         string
	endpoint, caFile, keyFile, sasFile string
}

// Open returns the store that rawURL names. It reads configuration and asks no server.
func Open(rawURL string, o Options) (*Store, error) {
	to, err := parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	s := &Store{account: to.account, name: to.container, url: to.String(), above: o.BlocksAbove, blockSize: o.BlockSize}
	if to.prefix != "" {
		s.prefix = to.prefix + "/"
	}
	if s.above == 0 {
		s.above = DefaultBlocksAbove
	}
	if s.blockSize == 0 {
		s.blockSize = DefaultBlockSize
	}
	if err := s.connect(to, o); err != nil {
		return nil, fmt.Errorf("open %s: %w", to, err)
	}
	return s, nil
}

// Azure documentation, "Naming and referencing containers, blobs, and metadata" and "Storage account name".
var (
	accountName   = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9])*$`)
)

func parse(rawURL string) (target, error) {
	var to target
	const like = "azure://account/container/prefix"
	at, err := remote.Parse(rawURL, like, "account_key_file or sas_token_file, or the environment", map[string]*string{"endpoint": &to.endpoint,
		"ca_file": &to.caFile, "account_key_file": &to.keyFile, "sas_token_file": &to.sasFile})
	if err != nil {
		if strings.Contains(rawURL, "sig=") {
			return target{}, errors.New("a SAS token does not belong into the URL, which is shown and logged: name its file with sas_token_file, or give archive.sas_token")
		}
		return target{}, err
	}
	to.account = at.Host
	to.container, to.prefix, _ = strings.Cut(at.Path, "/")
	switch {
	case at.Scheme != "azure" && at.Scheme != "azblob", to.container == "":
		return target{}, fmt.Errorf("%q is not like %s", at.Scheme+"://"+at.Host, like)
	case strings.Contains(to.account, "."):
		return target{}, fmt.Errorf("%q is an address: give the account's name, and another server as ?endpoint=", to.account)
	case !accountName.MatchString(to.account):
		return target{}, fmt.Errorf("%q cannot be the name of a storage account: it has 3 to 24 lower-case letters and digits", to.account)
	case len(to.container) < 3 || len(to.container) > 63 || !containerName.MatchString(to.container):
		return target{}, fmt.Errorf("%q cannot be the name of a container: it has 3 to 63 lower-case letters, digits and single hyphens", to.container)
	case len(to.prefix) > maxPrefix:
		return target{}, fmt.Errorf("prefix: longer than %d bytes", maxPrefix)
	case to.keyFile != "" && to.sasFile != "":
		return target{}, errors.New("account_key_file and sas_token_file exclude each other")
	}
	if to.endpoint == "" {
		return to, nil
	}
	to.endpoint = strings.TrimRight(to.endpoint, "/")
	return to, remote.CheckEndpoint(to.endpoint, true)
}

// String is the URL without what is only about access.
func (to target) String() string {
	s := "azure://" + to.account + "/" + to.container
	if to.prefix != "" {
		s += "/" + to.prefix
	}
	if to.endpoint != "" {
		s += "?endpoint=" + to.endpoint
	}
	return s
}

func (s *Store) connect(to target, o Options) error {
	pool, err := remote.Authorities(to.caFile)
	if err != nil {
		return err
	}
	transport := new(http.Transport)
	remote.Tune(transport, pool)
	options := azcore.ClientOptions{Transport: &http.Client{Transport: transport}, Retry: policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{ApplicationID: "walbaton"}}
	serviceURL := to.endpoint
	if serviceURL == "" {
		serviceURL = "https://" + to.account + ".blob.core.windows.net"
	}
	s.service, err = newService(serviceURL, to, o, options)
	if err != nil {
		return err
	}
	s.container = s.service.NewContainerClient(to.container)
	return nil
}

func (s *Store) String() string { return s.url }

// Variants implements store.Varied: a single request, and a list of blocks when bodies can be large enough for one.
func (s *Store) Variants(largest int64) []store.Variant {
	single, blocks := *s, *s
	single.above, blocks.above = math.MaxInt64, 0
	variants := []store.Variant{{Name: "single put", Store: &single}}
	if largest > s.above {
		variants = append(variants, store.Variant{Name: "block list", Store: &blocks})
	}
	return variants
}

// Hides implements store.Hider: an account with soft delete or with versions keeps what is deleted for a while. Versions are seen by the
// names that blobs then have; whether there is soft delete is a property of the account's blob service, for which one needs
// Microsoft.Storage/storageAccounts/blobServices/read, the account key, or an account SAS with srt=s.
func (s *Store) Hides(ctx context.Context) (bool, error) {
	one := int32(1)
	pager := s.container.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &s.prefix, MaxResults: &one, Include: container.ListBlobsInclude{Versions: true}})
	page, err := pager.NextPage(ctx)
	if err != nil {
		return false, s.fail(ctx, "list versions of", s.name, err)
	}
	for _, item := range page.Segment.BlobItems {
		if item.VersionID != nil && *item.VersionID != "" {
			return true, nil
		}
	}
	properties, err := s.service.GetProperties(ctx, nil)
	if err != nil {
		return false, s.fail(ctx, "get properties of", s.account, err)
	}
	soft := properties.DeleteRetentionPolicy
	return soft != nil && soft.Enabled != nil && *soft.Enabled, nil
}
