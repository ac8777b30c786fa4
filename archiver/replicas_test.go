package archiver_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
)

func hanging(s store.Store) store.Store {
	return mem.NewFaults(s, func(mem.Call) mem.Fault { return mem.Fault{Hang: true} })
}

// With several archives a fetch takes a file from the first that has it good, and calls it absent only when every required one proved that (P6).
func TestFetchFromSeveralArchives(t *testing.T) {
	one, two, _ := forked()
	near, far := prepare(t, seg(1, 1)), prepare(t, seg(1, 1))
	for _, p := range []*prepared{near, far} {
		p.fill(one)
		p.fill(two)
	}
	late, empty := prepare(t, seg(1, 1)), mem.New("empty")
	late.fill(one) // it lags: it has nothing of timeline 2
	spoiled := prepare(t, seg(1, 1))
	spoiled.fill(one)
	spoiled.fill(two)
	for _, n := range []wal.Name{segName(1, 3), wal.HistoryName(2)} {
		key := spoiled.a.Key(n)
		b := spoiled.get(key)
		b[len(b)-4] ^= 1
		spoiled.set(key, b)
	}
	const required, optional = true, false
	type r = archiver.Replica
	there, history, end := segName(1, 3).String(), wal.HistoryName(2).String(), segName(2, 40).String()
	for name, tc := range map[string]struct {
		all  []r
		ask  string
		want int
		why  string
	}{
		"both have it":                               {[]r{{"near", required, near.store}, {"far", required, far.store}}, there, 0, ""},
		"the first fails":                            {[]r{{"near", required, down(near.store)}, {"far", required, far.store}}, there, 0, ""},
		"the first hangs":                            {[]r{{"near", required, hanging(near.store)}, {"far", required, far.store}}, there, 0, ""},
		"the first is optional and hangs":            {[]r{{"near", optional, hanging(near.store)}, {"far", required, far.store}}, there, 0, ""},
		"the first lags":                             {[]r{{"late", required, late.store}, {"far", required, far.store}}, segName(2, 6).String(), 0, ""},
		"the first lags: a history":                  {[]r{{"late", required, late.store}, {"far", required, far.store}}, history, 0, ""},
		"the first has it damaged":                   {[]r{{"spoiled", required, spoiled.store}, {"far", required, far.store}}, there, 0, ""},
		"the first has a damaged history":            {[]r{{"spoiled", required, spoiled.store}, {"far", required, far.store}}, history, 0, ""},
		"all have it damaged":                        {[]r{{"spoiled", required, spoiled.store}, {"too", required, spoiled.store}}, there, 200, "cannot say"},
		"the end":                                    {[]r{{"near", required, near.store}, {"far", required, far.store}}, end, 1, "answered, and has neither"},
		"the end, and an optional one fails":         {[]r{{"near", required, near.store}, {"far", optional, down(far.store)}}, end, 1, "answered, and has neither"},
		"the end, and a required one fails":          {[]r{{"near", required, near.store}, {"far", required, down(far.store)}}, end, 200, "archive far"},
		"the end, and a required one hangs":          {[]r{{"near", required, hanging(near.store)}, {"far", required, far.store}}, end, 200, "cannot say"},
		"the end, and a required one is not mounted": {[]r{{"near", required, near.store}, {"far", required, empty}}, end, 200, "archive far"},
	} {
		t.Run(name, func(t *testing.T) {
			o := archiver.RestoreOptions{Own: archiver.Source{Store: archiver.Replicas(tc.all), Scope: "main"}, DataDir: dataDir(t, systemID, recovery)}
			out, b := fetch(t, o, tc.ask, false)
			if out.Code != tc.want || tc.why != "" && !strings.Contains(out.Why, tc.why) {
				t.Fatalf("got %+v, want %d with %q", out, tc.want, tc.why)
			}
			if tc.ask == there && tc.want == 0 && !bytes.Equal(b, one.Segment(seg(1, 3))) {
				t.Error("other bytes than PostgreSQL wrote")
			}
		})
	}
}

// An archive that hangs costs one call a moment, and the next ones nothing: it is asked last for a while.
func TestReplicaThatHangsIsAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := mem.New("near"), mem.New("far")
		for _, s := range []store.Store{near, far} {
			if err := s.Put(t.Context(), "k", strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
		}
		both := archiver.Replicas([]archiver.Replica{{"near", true, hanging(near)}, {"far", true, far}})
		get := func() time.Duration {
			began := time.Now()
			r, err := both.Get(t.Context(), "k", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		if took := get(); took > 2*time.Second {
			t.Errorf("the first call took %v", took)
		}
		if took := get(); took != 0 {
			t.Errorf("the second call took %v, want that the archive that hangs is not asked", took)
		}
	})
}

// A listing is that of all together, once each, in order; it fails when a required one does.
func TestReplicasList(t *testing.T) {
	near, far := mem.New("near"), mem.New("far")
	for s, keys := range map[store.Store][]string{near: {"a/1", "a/2", "a/4"}, far: {"a/2", "a/3", "a/5"}} {
		for _, k := range keys {
			if err := s.Put(t.Context(), k, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := func(s store.Store) (keys string, err error) {
		for info, err := range s.List(t.Context(), "a/", "a/1") {
			if err != nil {
				return keys, err
			}
			keys += strings.TrimPrefix(info.Key, "a/")
		}
		return keys, nil
	}
	if got, err := list(archiver.Replicas([]archiver.Replica{{"near", true, near}, {"far", true, far}})); got != "2345" || err != nil {
		t.Errorf("got %q (%v), want 2345", got, err)
	}
	if _, err := list(archiver.Replicas([]archiver.Replica{{"near", true, near}, {"far", true, down(far)}})); err == nil {
		t.Error("a listing without a required archive passes for one of all")
	}
	if got, err := list(archiver.Replicas([]archiver.Replica{{"near", true, near}, {"far", false, down(far)}})); got != "24" || err != nil {
		t.Errorf("without an optional one: got %q (%v), want 24", got, err)
	}
	if _, err := archiver.Replicas([]archiver.Replica{{"near", true, near}, {"far", true, down(far)}}).Head(t.Context(), "a/9"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that one lacks and another cannot say: got %v, want that nobody can say", err)
	}
}
