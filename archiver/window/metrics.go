package window

import (
	"errors"
	"io/fs"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	calls  *prometheus.CounterVec
	files  *prometheus.CounterVec
	unused prometheus.Counter
}

func newMetrics(r prometheus.Registerer, w *Window) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walbaton_fetch_segments_total",
			Help: "Segments given to restore_command by where they came from: window (prefetched), waited (prefetching was under way), archive (read for this call)."}, []string{"from"}),
		files: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walbaton_prefetch_files_total",
			Help: "Segments that were to be prefetched, by result: fetched, absent, error."}, []string{"result"}),
		unused: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_prefetch_unused_total", Help: "Prefetched segments thrown away: nobody asked for them."}),
	}
	for _, from := range []string{"window", "waited", "archive"} {
		m.calls.WithLabelValues(from)
	}
	for _, result := range []string{"fetched", "absent", "error"} {
		m.files.WithLabelValues(result)
	}
	if r == nil {
		return m
	}
	gauge := func(name, help string, value func(Tally) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(w.Tally()) })
	}
	r.MustRegister(m.calls, m.files, m.unused,
		gauge("walbaton_prefetch_bytes", "Bytes of prefetched segments on the disk.", func(t Tally) float64 { return float64(t.Bytes) }),
		gauge("walbaton_prefetch_ahead_segments", "How many segments the window means to be ahead of PostgreSQL; 0 while it rests.", func(t Tally) float64 { return float64(t.Ahead) }))
	return m
}

// file counts one that has come to its end.
func (m *metrics) file(err error) {
	switch {
	case err == nil:
		m.files.WithLabelValues("fetched").Inc()
	case errors.Is(err, fs.ErrNotExist):
		m.files.WithLabelValues("absent").Inc()
	default:
		m.files.WithLabelValues("error").Inc()
	}
}
