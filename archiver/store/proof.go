package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"time"
)

// ErrNotExclusive says that a store let a second writer have a key that was taken. Nothing may be put
// there: a dead primary that comes back could overwrite what the line has written.
var ErrNotExclusive = errors.New("store does not keep the first writer's object")

// Varied is the second interface of a driver that puts small and large bodies in different ways.
type Varied interface {
	// Variants returns the store once for each way in which it puts bodies of up to largest bytes,
	// bound to that way whatever the size of the body.
	Variants(largest int64) []Variant
}

// Variant is a store that puts in one way only.
type Variant struct {
	Name  string // "single put", "multipart completion"
	Store Store
}

const (
	probeWriters = 4
	probeRounds  = 3 // the first one opens the connections, so that the next ones really race
	probeSize    = 32 << 10
)

// Prove shows that s honours put-if-absent, in each way in which it would put bodies of up to largest
// bytes (a sealed segment can be a little larger than the segment), by trying: four writers race for one key below prefix, exactly one may win, a fifth comes
// late and must lose, and the object must be the winner's. It returns nil only when all of that was
// seen, ErrNotExclusive when two won, and any other error when it could not be shown.
//
// The key is a new one each time. On a fixed one, a probe left by an earlier proof would answer
// every writer, and two sidecars that start together would delete each other's probe
// in the middle of the race. Probes are deleted afterwards; where that is not allowed they
// remain, and harm nothing.
//
// A driver that is Varied is found below the decorators of this package and asked directly.
func Prove(ctx context.Context, s Store, prefix string, largest int64) error {
	for _, v := range variants(s, largest) {
		for range probeRounds {
			err := proveOnce(ctx, v.Store, prefix)
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("%s does not let us write: %w; see to whom the folder belongs, or what the credentials allow", s, err)
			}
			if errors.Is(err, ErrNotExclusive) {
				return fmt.Errorf("%s cannot hold an archive (%s): %w; it takes a server that honours If-None-Match, or a file system with hard links", s, v.Name, err)
			}
			if err != nil {
				return fmt.Errorf("try %s on %s: %w", v.Name, s, err)
			}
		}
	}
	return nil
}

func variants(s Store, largest int64) []Variant {
	if v, ok := below[Varied](s); ok {
		return v.Variants(largest)
	}
	return []Variant{{Name: "put if absent", Store: s}}
}

func proveOnce(ctx context.Context, s Store, prefix string) error {
	key := path.Join(prefix, "probe", rand.Text())
	defer func() {
		patience := 5 * time.Second
		if ctx.Err() != nil {
			patience = time.Second // the program stops
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = s.Delete(ctx, key) // a probe that stays is no harm
	}()
	var bodies [probeWriters + 1][]byte // the last one is the latecomer's
	for i := range bodies {
		line := fmt.Appendf(nil, "walbaton probe, writer %d\n", i+1)
		bodies[i] = bytes.Repeat(line, probeSize/len(line))
	}
	winner, err := race(ctx, s, key, bodies[:probeWriters])
	if err != nil {
		return err
	}
	switch err := s.Put(ctx, key, bytes.NewReader(bodies[probeWriters])); {
	case err == nil:
		return fmt.Errorf("a late writer got a key that was taken: %w", ErrNotExclusive)
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("late writer: %w", err)
	}
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	stored, err := io.ReadAll(io.LimitReader(r, 2*probeSize))
	if err != nil {
		return fmt.Errorf("read probe: %w", err)
	}
	if !bytes.Equal(stored, bodies[winner]) {
		return fmt.Errorf("the object is not what its winner wrote: %w", ErrNotExclusive)
	}
	return nil
}

// race lets one writer for each body loose on key and returns the only winner.
func race(ctx context.Context, s Store, key string, bodies [][]byte) (winner int, err error) {
	errs := make([]error, len(bodies))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, body := range bodies {
		wg.Go(func() {
			<-start
			errs[i] = s.Put(ctx, key, bytes.NewReader(body))
		})
	}
	close(start)
	wg.Wait()

	winners := 0
	var unclear error
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		case !errors.Is(err, fs.ErrExist):
			unclear = err
		}
	}
	switch {
	case winners > 1:
		return 0, fmt.Errorf("%d of %d writers got the same key: %w", winners, len(bodies), ErrNotExclusive)
	case unclear != nil:
		return 0, unclear
	case winners == 0:
		return 0, fmt.Errorf("none of %d writers got a new key", len(bodies))
	}
	return winner, nil
}
