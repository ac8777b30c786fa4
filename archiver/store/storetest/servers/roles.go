package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Credentials are those of a role: the policy that they were made with is all that they may.
type Credentials struct {
	AccessKeyId, SecretAccessKey, SessionToken string
}

// Environ is how the AWS SDK is told about them.
func (c Credentials) Environ() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": c.AccessKeyId, "AWS_SECRET_ACCESS_KEY": c.SecretAccessKey, "AWS_SESSION_TOKEN": c.SessionToken}
}

// AssumeRole asks MinIO for credentials that may what an IAM policy says, and no more (STS, AssumeRole with an inline policy).
// The server must be one without TLS. MinIO serves its users a moment later than everything else, so it is asked until it does.
func (s *Server) AssumeRole(ctx context.Context, policy string) (Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		c, err := s.assumeRole(ctx, policy)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return Credentials{}, fmt.Errorf("assume role: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Server) assumeRole(ctx context.Context, policy string) (Credentials, error) {
	body := url.Values{"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "DurationSeconds": {"3600"}, "Policy": {policy}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint+"/", strings.NewReader(body))
	if err != nil {
		return Credentials{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256([]byte(body))
	root := aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey}
	if err := v4.NewSigner().SignHTTP(ctx, root, r, hex.EncodeToString(sum[:]), "sts", "us-east-1", time.Now()); err != nil {
		return Credentials{}, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return Credentials{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return Credentials{}, err
	}
	var result struct {
		Credentials Credentials `xml:"AssumeRoleResult>Credentials"`
	}
	if answer.StatusCode != http.StatusOK {
		return Credentials{}, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return result.Credentials, xml.Unmarshal(text, &result)
}
