package consul

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// DeniedError says which rule the policy of our token lacks. It is fs.ErrPermission to errors.Is.
type DeniedError struct {
	Rule string // as a policy has it; "": Consul does not know the token at all
}

func (e *DeniedError) Error() string {
	if e.Rule == "" {
		return "permission denied: Consul does not know the token"
	}
	return "permission denied: the token lacks " + e.Rule
}

func (e *DeniedError) Unwrap() error { return fs.ErrPermission }

// rule writes one rule of an ACL policy.
func rule(kind, name, policy string) string {
	return fmt.Sprintf(`%s "%s" { policy = "%s" }`, kind, name, policy)
}

// The rules that our token needs; docs/dcs.md has them.
func (c *Client) readRule() string   { return rule("key_prefix", c.prefix, "read") }
func (c *Client) batonRule() string  { return rule("key", c.prefix+batonKey, "write") }
func (c *Client) recordRule() string { return rule("key_prefix", c.prefix+records, "write") }

// sessionRule is for the node of the agent that is asked, whose name we do not know.
func sessionRule() string { return rule("session_prefix", "", "write") }

// unread is about an answer that lacks what the token may not read: Consul leaves it out.
func (c *Client) unread() error { return &DeniedError{Rule: c.readRule()} }

// because finds the reason in what the library answers: the context's own error before its
// words for it, and a missing permission by the rule that would give it.
func because(ctx context.Context, err error, needed string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var status api.StatusError
	answered := errors.As(err, &status)
	text := err.Error()
	switch {
	case errors.As(err, new(*DeniedError)):
		return err
	case strings.Contains(text, "ACL not found"):
		return &DeniedError{}
	case strings.Contains(text, "'key:list'"): // of acl.enable_key_list_policy
		return &DeniedError{Rule: strings.Replace(needed, `"read"`, `"list"`, 1)}
	case strings.Contains(text, "Permission denied") || answered && status.Code == http.StatusForbidden:
		return &DeniedError{Rule: needed}
	case answered:
		return fmt.Errorf("consul answers %d: %s", status.Code, strings.TrimSpace(status.Body))
	}
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err // without the address, which the log has, and the query
	}
	return err
}
