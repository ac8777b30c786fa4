package store_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/store/mem"
)

// gather returns the values of all counters, and the counts of all histograms, by name and label values.
func gather(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, metric := range family.Metric {
			name := strings.TrimPrefix(family.GetName(), "walbaton_store_")
			for _, label := range metric.Label {
				name += " " + label.GetValue()
			}
			values[name] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestMeter(t *testing.T) { synctest.Test(t, testMeter) }

func testMeter(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics := store.NewMetrics(registry)
	values := gather(t, registry)
	if len(values) != 5*8+5+2 {
		t.Errorf("got %d series before the first request, want %d", len(values), 5*8+5+2)
	}
	for name, value := range values {
		if value != 0 {
			t.Errorf("%s: got %v before the first request, want 0", name, value)
		}
	}
	inner, outer, _ := faulty(mem.Fault{}, mem.Fault{}, mem.Fault{Drop: true}, mem.Fault{Hang: true})
	s := store.Stall(store.Meter(outer, metrics), 10*time.Millisecond)
	for range 4 { // stored, taken, dropped, stalled
		_ = put(t.Context(), s, "key", "0123456789")
	}
	_, _ = s.Head(t.Context(), "key")
	_, _ = s.Head(t.Context(), "absent")
	r, err := s.Get(t.Context(), "key", 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	for range 2 { // closing twice counts once
		_ = r.Close()
	}
	for range s.List(t.Context(), "", "") {
	}
	_ = s.Delete(t.Context(), "key")
	inner.Unmount(true)
	_ = s.Delete(t.Context(), "key")

	want := map[string]float64{
		"requests_total put ok": 1, "requests_total put exists": 1, "requests_total put error": 1, "requests_total put stalled": 1,
		"requests_total head ok": 1, "requests_total head absent": 1, "requests_total get ok": 1, "requests_total list ok": 1,
		"requests_total delete ok": 1, "requests_total delete no_root": 1,
		"bytes_total sent": 10, "bytes_total received": 3,
		"request_duration_seconds put": 4, "request_duration_seconds head": 2, "request_duration_seconds get": 1,
		"request_duration_seconds list": 1, "request_duration_seconds delete": 2,
	}
	for name, value := range gather(t, registry) {
		if value != want[name] {
			t.Errorf("%s: got %v, want %v", name, value, want[name])
		}
	}
}
