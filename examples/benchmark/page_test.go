package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPageIsWritten holds docs/benchmark.md to the raw numbers: nothing in it was typed.
func TestPageIsWritten(t *testing.T) {
	docs := t.TempDir()
	if out, err := exec.Command("cp", "-r", "../../docs/benchmark", docs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := (&bench{options: options{docs: docs}}).page(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/benchmark.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(docs, "benchmark.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("docs/benchmark.md is not what `benchmark page` writes from docs/benchmark/*.json")
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   string
	}{
		{nil, ""},
		{[]float64{2}, "2.0"},
		{[]float64{3, 1}, "2.0 (1.0 to 3.0)"},
		{[]float64{5, 1, 2}, "2.0 (1.0 to 5.0)"},
	} {
		if got := spread("%.1f", test.values); got != test.want {
			t.Errorf("spread(%v) = %q, want %q", test.values, got, test.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var us []int64
	for i := range 200 {
		us = append(us, int64(1000*(200-i))) // 1 to 200 ms, not in order
	}
	if got, want := [2]float64{p50(us), p99(us)}, [2]float64{100, 198}; got != want {
		t.Errorf("p50 and p99 of 1 to 200 are %v, want %v", got, want)
	}
}

func TestSealedBy(t *testing.T) {
	object := "\x57\x2a\x4d\x18\x10\x00\x00\x00" + `{"member":"n1"}` + "\n" + "the rest"
	if got, err := sealedBy([]byte(object)); got != "n1" || err != nil {
		t.Errorf("sealedBy = %q, %v, want n1", got, err)
	}
	for _, short := range []string{"", object[:8], object[:20]} {
		if _, err := sealedBy([]byte(short)); err == nil {
			t.Errorf("sealedBy(%q) has no error", short)
		}
	}
}

func TestProcess(t *testing.T) {
	user, system, err := processCPU(os.Getpid())
	if err != nil || user+system > machineCPU() {
		t.Errorf("this process used %v + %v s, %v; the machine %v s", user, system, err, machineCPU())
	}
	if got := kilobytes("/proc/self/status", "VmHWM"); got < 1000 {
		t.Errorf("VmHWM = %d kB", got)
	}
}
