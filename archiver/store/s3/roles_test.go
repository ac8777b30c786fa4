package s3_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

// roleServer is where the SDK gets the credentials of a role: STS, a container's agent, an instance's metadata. It gives stub's key, each time for
// a moment only, so that it is asked again.
type roleServer struct {
	t  *testing.T
	mu sync.Mutex
	// What it was asked with, in order.
	tokens []string
}

func (r *roleServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	_ = q.ParseForm()
	expires := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
	asked := func(token string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tokens = append(r.tokens, token)
	}
	keys := map[string]string{"AccessKeyId": accessKey, "SecretAccessKey": secretKey, "Token": "session", "Expiration": expires, "Code": "Success"}
	switch {
	case q.Form.Get("Action") == "AssumeRoleWithWebIdentity":
		asked(q.Form.Get("WebIdentityToken"))
		if want := "arn:aws:iam::1:role/wal"; q.Form.Get("RoleArn") != want {
			r.t.Errorf("got role %q, want %q", q.Form.Get("RoleArn"), want)
		}
		if q.Form.Get("WebIdentityToken") == "expired" {
			w.WriteHeader(400)
			fmt.Fprint(w, `<ErrorResponse><Error><Code>ExpiredTokenException</Code><Message>Token expired: 1 must be after 2</Message></Error></ErrorResponse>`)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId>
			<SecretAccessKey>%s</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
			accessKey, secretKey, expires)
	case q.URL.Path == "/container":
		asked(q.Header.Get("Authorization"))
		_ = json.NewEncoder(w).Encode(keys)
	case q.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		fmt.Fprint(w, "imds")
	case q.URL.Path == "/latest/meta-data/iam/security-credentials/":
		fmt.Fprint(w, "wal")
	case q.URL.Path == "/latest/meta-data/iam/security-credentials/wal":
		asked(q.Header.Get("X-Aws-Ec2-Metadata-Token"))
		_ = json.NewEncoder(w).Encode(keys)
	default:
		http.NotFound(w, q)
	}
}

func (r *roleServer) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tokens
}

// noCredentials takes away whatever the SDK would find on this machine.
func noCredentials(t *testing.T) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "eu-central-1",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_ROLE_ARN": "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
}

// Without a key in the configuration the SDK's own ways are used: a Pod's web identity, a container's role, an instance's.
// A token that is renewed in its file is read again.
func TestRoles(t *testing.T) {
	for _, test := range []struct {
		name string
		env  func(server, tokenFile string) map[string]string
		want string
	}{
		{"web identity", func(server, tokenFile string) map[string]string {
			return map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": tokenFile, "AWS_ROLE_ARN": "arn:aws:iam::1:role/wal", "AWS_ENDPOINT_URL_STS": server}
		}, "token"},
		{"container", func(server, tokenFile string) map[string]string {
			return map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": server + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": tokenFile}
		}, "token"},
		{"instance", func(server, _ string) map[string]string {
			return map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server}
		}, "imds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			noCredentials(t)
			roles := &roleServer{t: t}
			server := httptest.NewServer(roles)
			defer server.Close()
			tokenFile := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(tokenFile, []byte("token"), 0o600); err != nil {
				t.Fatal(err)
			}
			for name, value := range test.env(server.URL, tokenFile) {
				t.Setenv(name, value)
			}
			_, url := newStub(t)
			proxy := storetest.NewProxy(t, url)
			s, err := s3.Open(t.Context(), "s3://wal?endpoint="+proxy.URL, s3.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
				t.Fatal(err)
			}
			for _, r := range proxy.Requests() {
				if got := r.Header.Get("X-Amz-Security-Token"); got != "session" {
					t.Errorf("%s with the session token %q", r.Method, got)
				}
			}
			if seen := roles.seen(); len(seen) == 0 || seen[0] != test.want {
				t.Errorf("the role was asked for with %q, want %q", seen, test.want)
			}
		})
	}
}

func TestWebIdentityRenewed(t *testing.T) {
	noCredentials(t)
	roles := &roleServer{t: t}
	server := httptest.NewServer(roles)
	defer server.Close()
	tokenFile := filepath.Join(t.TempDir(), "token")
	for name, value := range map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": tokenFile, "AWS_ROLE_ARN": "arn:aws:iam::1:role/wal", "AWS_ENDPOINT_URL_STS": server.URL} {
		t.Setenv(name, value)
	}
	_, url := newStub(t)
	s, err := s3.Open(t.Context(), "s3://wal?endpoint="+url, s3.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put := func(token string) error {
		if token != "" {
			if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return s.Put(t.Context(), "key "+token, strings.NewReader("data"))
	}
	if err := put(""); err == nil || isKind(err) || !strings.Contains(err.Error(), tokenFile) {
		t.Errorf("without the token's file: got %v, want an error without a kind that names it", err)
	}
	if err := put("expired"); err == nil || isKind(err) || !strings.Contains(err.Error(), "Token expired") {
		t.Errorf("with an expired token: got %v, want what STS says", err)
	}
	for _, token := range []string{"first", "second"} {
		if err := put(token); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; {
			seen := roles.seen()
			if seen[len(seen)-1] == token {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the token %s was never used: %q", token, seen)
			}
			if _, err := s.Head(t.Context(), "key "+token); err != nil { // once the last credentials have expired
				t.Fatal(err)
			}
		}
	}
}

// forwarder is a proxy as companies have them: it forwards http, and opens tunnels for https. Whatever host is asked for, it
// goes to one server.
type forwarder struct {
	target string // host:port
	mu     sync.Mutex
	seen   []string
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.Host)
	f.mu.Unlock()
	out, err := net.Dial("tcp", f.target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer out.Close()
	if r.Method != http.MethodConnect {
		if err := r.Write(out); err != nil {
			return
		}
		answer, err := http.ReadResponse(bufio.NewReader(out), r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
		return
	}
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	_, _ = io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(out, in) }()
	_, _ = io.Copy(in, out)
}

// A server that can only be reached through the proxy of the environment is. Go reads these variables once, so a child
// process makes the requests: this test again.
func TestThroughAProxy(t *testing.T) {
	if url := os.Getenv("WALBATON_TEST_PROXIED"); url != "" {
		s, err := s3.Open(t.Context(), url, s3.Options{AccessKey: accessKey, SecretKey: secretKey})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), "key", strings.NewReader("data")); err != nil {
			t.Fatal(err)
		}
		if err := read(s.Get(t.Context(), "key", 0, -1)); err != nil {
			t.Fatal(err)
		}
		return
	}
	_, plain := newStub(t)
	_, secure, caFile := newTLSStub(t)
	for _, test := range []struct{ variable, server, url, want string }{
		{"HTTP_PROXY", plain, "s3://wal?endpoint=http://s3.example.com:9000", "PUT s3.example.com:9000"},
		{"HTTPS_PROXY", secure, "s3://wal?endpoint=https://example.com:9000&ca_file=" + caFile, "CONNECT example.com:9000"},
	} {
		_, target, _ := strings.Cut(test.server, "://")
		f := &forwarder{target: target}
		proxy := httptest.NewServer(f)
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestThroughAProxy$")
		child.Env = append(os.Environ(), "WALBATON_TEST_PROXIED="+test.url, "HTTP_PROXY=", "HTTPS_PROXY=", "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=", test.variable+"="+proxy.URL)
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", test.variable, err, out)
		}
		proxy.CloseClientConnections()
		proxy.Close()
		if len(f.seen) == 0 || f.seen[0] != test.want {
			t.Errorf("%s: the proxy saw %q, want %q", test.variable, f.seen, test.want)
		}
	}
}
