package main

import (
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/file"
)

// An archive that is not mounted is the same trouble at every try, though each proof has a key of its own.
func TestSteady(t *testing.T) {
	s, err := file.Open("/nowhere/archive")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for range 2 {
		err := store.Prove(t.Context(), s, "shop/probe/n1", 1<<20)
		if err == nil {
			t.Fatal("proven without a folder")
		}
		if why := archiver.Reason(s, steady(err)); !strings.Contains(why, "/nowhere/archive is not there") {
			t.Errorf("the reason is %q", why)
		}
		said = append(said, steady(err).Error())
	}
	if said[0] != said[1] || !strings.Contains(said[0], "no such root") {
		t.Errorf("got %q and then %q", said[0], said[1])
	}
}
