package leader

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// UploadGrace is how long uploads under way may go on after the context of their term has
// ended: the margin has room for it.
const UploadGrace = time.Second

// Options are the settings of an Elector. The zero values of the times, the policy and
// MaxLag stand for the defaults of DESIGN section 9.
type Options struct {
	Self   string        // our member name in Patroni
	TTL    time.Duration // of the baton's and the record's lease; 15 s
	Every  time.Duration // between renewals, and between readings when nothing happens; the limit of one request; 5 s
	Margin time.Duration // a term ends this long before its lease may; 3 s
	Settle time.Duration // how long a change of the choice must hold; 200 ms

	Policy Policy // primary
	MaxLag uint64 // bytes, of PolicyReplica; 128 MB

	Log     *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.TTL, 15*time.Second)
	set(&o.Every, 5*time.Second)
	set(&o.Margin, 3*time.Second)
	set(&o.Settle, 200*time.Millisecond)
	if o.Policy == "" {
		o.Policy = PolicyPrimary
	}
	if o.MaxLag == 0 {
		o.MaxLag = 128 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// check refuses settings with which the promises cannot hold.
func (o Options) check() error {
	switch {
	case o.Self == "":
		return errors.New("check election: the member name is empty")
	case o.TTL <= 0 || o.Every <= 0 || o.Margin <= 0 || o.Settle <= 0:
		return fmt.Errorf("check election: ttl %v, every %v, margin %v, settle %v: all must be above zero", o.TTL, o.Every, o.Margin, o.Settle)
	case o.Every+o.Margin >= o.TTL:
		return fmt.Errorf("check election: every %v + margin %v must be below ttl %v, or a term ends before its first renewal", o.Every, o.Margin, o.TTL)
	case o.Margin <= UploadGrace:
		return fmt.Errorf("check election: margin %v must be above %v, which uploads get after the end of a term", o.Margin, UploadGrace)
	case o.Settle >= o.Every:
		return fmt.Errorf("check election: settle %v must be below every %v", o.Settle, o.Every)
	case o.Policy != PolicyPrimary && o.Policy != PolicyReplica:
		return fmt.Errorf("check election: policy %q is neither %q nor %q", o.Policy, PolicyPrimary, PolicyReplica)
	}
	return nil
}
