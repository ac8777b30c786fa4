package main

import "testing"

func TestUnnamed(t *testing.T) {
	for name, want := range map[string]string{
		`go_goroutines`: `go_goroutines`,
		`walbaton_archive_open{member="n1",scope="x"}`:                                   `walbaton_archive_open`,
		`walbaton_files_put_total{kind="segment",member="n1",result="stored",scope="x"}`: `walbaton_files_put_total{kind="segment",result="stored"}`,
	} {
		if got := unnamed(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
