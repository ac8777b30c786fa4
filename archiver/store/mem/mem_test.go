package mem_test

import (
	"testing"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		s := mem.New(t.Name())
		return s, s
	}, storetest.Options{
		Large: 1 << 20,
		Broken: map[string]storetest.Broken{
			"unmounted": {Want: store.ErrNoRoot, Open: func(t *testing.T) store.Store {
				s := mem.New(t.Name())
				s.Unmount(true)
				return s
			}},
		},
	})
}
