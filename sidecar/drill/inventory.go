package drill

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
)

// Inventory remembers every object of an archive, to find one that changes or disappears: walbaton writes once.
type Inventory struct {
	store Store
	seen  map[string]seen
}

type seen struct {
	Object
	sum [sha256.Size]byte
}

// Rewritten is an object that did not stay as it was.
type Rewritten struct{ Key, How string }

func (r *Rewritten) Error() string { return r.Key + ": " + r.How }

// NewInventory is empty.
func NewInventory(s Store) *Inventory { return &Inventory{store: s, seen: map[string]seen{}} }

// kept says whether an object is one of those that are written once; a store's temporary files and the probe of
// put-if-absent are not.
func kept(key string) bool {
	for _, folder := range []string{"/wal/", "/history/", "/orphans/", "/floor/"} {
		if strings.Contains(key, folder) {
			return true
		}
	}
	return strings.HasSuffix(key, "/archive.json")
}

// Look adds what is new and compares what is known; thorough reads every byte again.
func (v *Inventory) Look(ctx context.Context, thorough bool) error {
	all, err := v.store.Objects(ctx)
	if err != nil {
		return err
	}
	now := map[string]Object{}
	for _, o := range all {
		if kept(o.Key) && !strings.Contains(filepath.Base(o.Key), "tmp") {
			now[o.Key] = o
		}
	}
	for key, was := range v.seen {
		if o, ok := now[key]; !ok {
			return &Rewritten{key, "disappeared"}
		} else if o != was.Object {
			return &Rewritten{key, fmt.Sprintf("was %v, now is %v", was.Object, o)}
		}
	}
	for key, o := range now {
		was, known := v.seen[key]
		if known && !thorough {
			continue
		}
		text, err := v.store.Read(ctx, key)
		if err != nil {
			return err
		}
		if int64(len(text)) != o.Size {
			return fmt.Errorf("%s: %d bytes, listed with %d", key, len(text), o.Size)
		}
		sum := sha256.Sum256(text)
		if known && sum != was.sum {
			return &Rewritten{key, "has other content than before"}
		}
		v.seen[key] = seen{o, sum}
	}
	return nil
}

// Len is the number of objects seen.
func (v *Inventory) Len() int { return len(v.seen) }
