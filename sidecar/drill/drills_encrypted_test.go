//go:build drills

package drill

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// Drill 2 with encryption: the nodes have only a public key. What they archive after a primary was killed is restored with the identity, to the row,
// by walbaton and by age and zstd; and nothing but histories can be read without.
func TestDrillEncrypted(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, Options{Settings: fmt.Sprintf("encrypt_to: [%s]\n", id.Recipient()), Identity: id.String()})
	s.killPrimaryWhileStoreIsDown()
	s.wholeTruth()
	s.do("every segment is encrypted", func(ctx context.Context) error {
		all, err := s.Shipped(ctx, nil)
		for _, h := range all {
			if h.Encryption != "age" {
				err = errors.Join(err, fmt.Errorf("%s is not", h.Key))
			}
		}
		if len(all) < 20 {
			err = errors.Join(err, fmt.Errorf("only %d segments are there", len(all)))
		}
		return err
	})
	all, err := s.Shipped(s.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(strings.TrimPrefix(s.Store.URL(), "file://"), all[0].Key)
	s.types(s.Nodes[0], "docs/encryption.md", map[string]string{"KEY": s.identity(), "OBJECT": object, "PLAIN": "plain"})
}
