package leader

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// numbers are the metrics of an Elector. Every label value exists from the start, so that
// alerts do before the first failure.
type numbers struct {
	terms    *prometheus.CounterVec
	requests *prometheus.CounterVec
	leaders  prometheus.Counter
	success  prometheus.Gauge
}

func newNumbers(r prometheus.Registerer) (*numbers, error) {
	n := &numbers{
		terms: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walbaton_terms_total", Help: "Terms of this node that have ended, by how: demoted (another node is to ship), stopped (the sidecar stopped), expired, lost, errand_done, errand_given_up, released."}, []string{"end"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walbaton_dcs_requests_total", Help: "Requests to the DCS; a refusal is an answer, so it counts as ok."}, []string{"op", "result"}),
		leaders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "walbaton_leader_changes_total", Help: "Changes of Patroni's leader that this node has seen: each is a failover or a switchover."}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "walbaton_dcs_last_success_timestamp_seconds", Help: "When the last request that the DCS answered was sent."}),
	}
	for _, e := range ends {
		n.terms.WithLabelValues(e.label)
	}
	for _, op := range []string{"read", "claim", "renew", "release", "announce"} {
		n.requests.WithLabelValues(op, "ok")
		n.requests.WithLabelValues(op, "error")
	}
	if r == nil {
		return n, nil
	}
	for _, c := range []prometheus.Collector{n.terms, n.requests, n.leaders, n.success} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return n, nil
}

func (n *numbers) request(op string, ok bool) {
	result := "ok"
	if !ok {
		result = "error"
	}
	n.requests.WithLabelValues(op, result).Inc()
}
