package azure

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/walbaton/walbaton/archiver/store/remote"
)

// secretAge is after how long a file with a secret is read again, so that a rotated one needs no restart.
const secretAge = time.Minute

// newService makes a client that shows who we are: by account key, by SAS token, or by the default chain.
func newService(serviceURL string, to target, o Options, options azcore.ClientOptions) (*service.Client, error) {
	key := &secret{what: "account key", file: to.keyFile, value: o.AccountKey, check: checkAccountKey}
	token := &secret{what: "SAS token", file: to.sasFile, value: o.SASToken, check: checkSAS}
	for _, s := range []*secret{key, token} {
		if s.value != "" {
			if err := s.check(s.value); err != nil {
				return nil, fmt.Errorf("%s: %w", s.what, err)
			}
		}
	}
	switch {
	case key.file != "", token.file == "" && key.value != "":
		credential, err := service.NewSharedKeyCredential(to.account, "") // the policy gives it its key
		if err != nil {
			return nil, err
		}
		options.PerCallPolicies = append(options.PerCallPolicies, keyPolicy{key, credential})
		return service.NewClientWithSharedKeyCredential(serviceURL, credential, &service.ClientOptions{ClientOptions: options})
	case token.file != "", token.value != "":
		options.PerCallPolicies = append(options.PerCallPolicies, sasPolicy{token})
		return service.NewClientWithNoCredential(serviceURL, &service.ClientOptions{ClientOptions: options})
	}
	if strings.HasPrefix(serviceURL, "http:") {
		return nil, errors.New("over http it takes an account key or a SAS token: other credentials are not sent in the clear")
	}
	credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options})
	if err != nil {
		return nil, err
	}
	return service.NewClient(serviceURL, credential, &service.ClientOptions{ClientOptions: options})
}

// secret is a value, or what a file holds.
type secret struct {
	what  string
	file  string
	check func(string) error

	mu    sync.Mutex
	value string
	read  time.Time // when the file was
}

func (s *secret) get() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" || time.Since(s.read) < secretAge {
		return s.value, nil
	}
	content, err := os.ReadFile(s.file)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(content))
	if err := s.check(value); err != nil {
		return "", fmt.Errorf("%s of %s: %w", s.what, s.file, err)
	}
	s.value, s.read = value, time.Now()
	return value, nil
}

func checkAccountKey(key string) error {
	if _, err := base64.StdEncoding.DecodeString(key); err != nil || key == "" {
		return errors.New("it is not base64, as the keys of a storage account are")
	}
	return nil
}

func checkSAS(token string) error {
	q, err := url.ParseQuery(strings.TrimPrefix(token, "?"))
	if err != nil || q.Get("sig") == "" || strings.Contains(token, "://") {
		return errors.New("it is not of the form sv=...&sp=rcl&se=...&sig=SIGNATURE")
	}
	return nil
}

// keyPolicy gives the credential that signs requests the present key.
type keyPolicy struct {
	key        *secret
	credential *service.SharedKeyCredential
}

func (p keyPolicy) Do(r *policy.Request) (*http.Response, error) {
	key, err := p.key.get()
	if err == nil {
		err = p.credential.SetAccountKey(key)
	}
	if err != nil {
		return nil, remote.Certain{Err: err}
	}
	return r.Next()
}

// sasPolicy adds the present token to a request. It is in no error: those of this package have no URLs.
type sasPolicy struct{ token *secret }

func (p sasPolicy) Do(r *policy.Request) (*http.Response, error) {
	token, err := p.token.get()
	if err != nil {
		return nil, remote.Certain{Err: err}
	}
	at := r.Raw().URL
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += strings.TrimPrefix(token, "?")
	return r.Next()
}
