package kubernetes

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations of our Leases.
const (
	epochAnnotation  = "walbaton/epoch"  // of the baton
	tokenAnnotation  = "walbaton/token"  // of the baton: tells our own claim from another one of the same member
	recordAnnotation = "walbaton/record" // what a sidecar says
)

// foreignDuration is for a Lease in which somebody has written no duration.
const foreignDuration = time.Minute

func leaseOf(o metav1.Object) *coordinationv1.Lease {
	l, _ := o.(*coordinationv1.Lease)
	return l
}

// empty is a new Lease of ours.
func (n names) empty(name string) *coordinationv1.Lease {
	labels := map[string]string{"app.kubernetes.io/managed-by": "walbaton"}
	for k, v := range n.labels {
		labels[k] = v
	}
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// belongs is an error for a Lease of the right name that is another scope's: demo-walbaton-x-walbaton is the
// record of a member x-walbaton of demo, and the baton of a scope demo-walbaton-x.
func (n names) belongs(l *coordinationv1.Lease) error {
	for k, v := range n.labels {
		if l.Labels[k] != v {
			return fmt.Errorf("lease %s has the label %s=%q, want %q: it is another scope's", l.Name, k, l.Labels[k], v)
		}
	}
	return nil
}

// record is the name of a member's Lease.
func (n names) record(member string) string {
	name := n.baton + "-" + member
	if plain(member) && len(name) <= 253 {
		return name
	}
	return fmt.Sprintf("%s.%x", n.baton, sha256.Sum256([]byte(member)))[:len(n.baton)+33]
}

// plain says whether a member's name can be the end of an object's name (a DNS subdomain, RFC
// 1123); that of a Pod always can.
func plain(member string) bool {
	for label := range strings.SplitSeq(member, ".") {
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return strings.Trim(member, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

// hold makes l a Lease that holder has for ttl from now. With fresh it is a new tenure.
func hold(l *coordinationv1.Lease, holder string, ttl time.Duration, fresh bool) {
	now, duration := metav1.NowMicro(), seconds(ttl)
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &holder, &duration, &now
	if fresh {
		l.Spec.AcquireTime = &now
		count(l)
	}
}

// free makes l a Lease that nobody has.
func free(l *coordinationv1.Lease) {
	now := metav1.NowMicro()
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = nil, nil, &now
}

// count adds one to the transitions, which only grow.
func count(l *coordinationv1.Lease) {
	n := transitions(l) + 1
	l.Spec.LeaseTransitions = &n
}

func transitions(l *coordinationv1.Lease) int32 {
	if l.Spec.LeaseTransitions == nil {
		return 0
	}
	return *l.Spec.LeaseTransitions
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func duration(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return foreignDuration
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// held says whether somebody has l and has renewed it within its duration, as far as we have seen.
// Whoever writes it is alive, so its mark is the revision.
func (c *Client) held(l *coordinationv1.Lease) bool {
	mark := string(l.UID) + " " + l.ResourceVersion
	return c.seen.look(sightKey(leases, l.Name), mark, duration(l)) && holder(l) != ""
}

// seconds rounds up: a lease must not be shorter than what the caller counts on.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }
