package archiver

import (
	"errors"
	"io/fs"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver/wal"
)

// rows are all that a push can be answered with, so that every series exists from the start.
var rows = [...]string{"1", "2", "3", "4a", "4b", "4c", "5", "6a", "6b", "6c", "7", "8", "9", "10", "11", "12", "13"}

// AlarmRows are those of them that raise an alarm.
func AlarmRows() []string { return []string{"4c", "6b", "6c", "8", "9"} }

type metrics struct {
	answers    *prometheus.CounterVec
	answering  *prometheus.HistogramVec
	puts       *prometheus.CounterVec
	putSeconds prometheus.Histogram
	putBytes   prometheus.Counter
	protected  prometheus.Counter
	settled    prometheus.Counter
	orphans    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walbaton_push_answers_total",
			Help: "Answers to archive_command, by the row of the table in docs/push.md and exit code."}, []string{"row", "code"}),
		answering: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "walbaton_push_duration_seconds",
			Help: "Time from a push to its answer, by exit code: archive_command takes that long.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 15)}, []string{"code"}),
		puts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "walbaton_files_put_total",
			Help: "Files offered to the archive, by kind and result: stored, exists (somebody was faster), error."}, []string{"kind", "result"}),
		putSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "walbaton_put_duration_seconds",
			Help: "Time of one put that was stored.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		putBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_put_bytes_total", Help: "Sealed bytes that the archive took."}),
		protected: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_segments_protected_total",
			Help: "Segments renamed from .done to .ready because the archive lacked them."}),
		settled: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_segments_settled_total",
			Help: "Segments renamed from .ready to .done on a standby once the archive had them."}),
		orphans: prometheus.NewCounter(prometheus.CounterOpts{Name: "walbaton_orphans_total", Help: "Files copied to orphans/."}),
	}
	for _, row := range rows {
		m.answers.WithLabelValues(row, "0")
		m.answers.WithLabelValues(row, "1")
	}
	m.answering.WithLabelValues("0")
	m.answering.WithLabelValues("1")
	for _, k := range []wal.Kind{wal.KindSegment, wal.KindPartial, wal.KindHistory, wal.KindBackup} {
		for _, result := range []string{"stored", "exists", "error"} {
			m.puts.WithLabelValues(k.String(), result)
		}
	}
	if r != nil {
		r.MustRegister(m.answers, m.answering, m.puts, m.putSeconds, m.putBytes, m.protected, m.settled, m.orphans)
	}
	return m
}

func (m *metrics) answer(r Reply, took time.Duration) {
	code := "0"
	if r.Code != 0 {
		code = "1"
	}
	m.answers.WithLabelValues(r.Row, code).Inc()
	m.answering.WithLabelValues(code).Observe(took.Seconds())
}

func (m *metrics) put(k wal.Kind, err error, took time.Duration, size int64) {
	switch {
	case err == nil:
		m.puts.WithLabelValues(k.String(), "stored").Inc()
		m.putSeconds.Observe(took.Seconds())
		m.putBytes.Add(float64(size))
	case errors.Is(err, fs.ErrExist):
		m.puts.WithLabelValues(k.String(), "exists").Inc()
	default:
		m.puts.WithLabelValues(k.String(), "error").Inc()
	}
}
