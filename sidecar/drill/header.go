package drill

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Header is what the start of an object says of it: DESIGN section 5, read without walbaton's own code.
type Header struct {
	Key    string `json:"-"`
	Name   string `json:"name"`
	Member string `json:"member"` // who sealed it
	Term   uint64 `json:"term"`   // of the baton, 0 without it

	Encryption string `json:"encryption"` // "age", or nothing
}

// Shipped are the headers of all segments in the archive but those that are already known, in the order of their names.
func (c *Cluster) Shipped(ctx context.Context, known []Header) ([]Header, error) {
	return c.headers(ctx, known, func(key string) bool { return strings.Contains(key, "/wal/") && len(path.Base(key)) == 24 })
}

// Orphans are the headers of what lies in orphans/.
func (c *Cluster) Orphans(ctx context.Context) ([]Header, error) {
	return c.headers(ctx, nil, func(key string) bool { return strings.Contains(key, "/orphans/") })
}

func (c *Cluster) headers(ctx context.Context, known []Header, wanted func(key string) bool) ([]Header, error) {
	all, err := c.Store.Objects(ctx)
	if err != nil {
		return nil, err
	}
	var out []Header
	for _, o := range all {
		if !wanted(o.Key) || slices.ContainsFunc(known, func(h Header) bool { return h.Key == o.Key }) {
			continue
		}
		text, err := c.Store.Read(ctx, o.Key)
		if err != nil {
			return nil, err
		}
		h, err := parseHeader(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		h.Key = o.Key
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b Header) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// parseHeader opens the skippable frame at the start of an object: magic, size, JSON, all little endian.
func parseHeader(object []byte) (h Header, err error) {
	if len(object) < 8 || binary.LittleEndian.Uint32(object)&^0xF != 0x184D2A50 {
		return h, fmt.Errorf("%.8x is no skippable frame", object)
	}
	size := int(binary.LittleEndian.Uint32(object[4:]))
	if 8+size > len(object) {
		return h, fmt.Errorf("a header of %d bytes in an object of %d", size, len(object))
	}
	text := strings.TrimRight(string(object[8:8+size]), " \x00\n")
	return h, json.Unmarshal([]byte(text), &h)
}
