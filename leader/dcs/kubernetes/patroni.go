package kubernetes

import (
	"encoding/json"
	"hash/fnv"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/walbaton/walbaton/leader/dcs"
)

// defaultTTL is Patroni's, for a leader whose ttl annotation is no number.
const defaultTTL = 30 * time.Second

// keysOf are the keys that an object of Patroni's may hold. Those of the status do not end a Wait.
func (n names) keysOf(list int, name string) []string {
	switch {
	case list == pods:
		return []string{"members/" + name}
	case list != kinds:
	case name == n.leader:
		return []string{"leader", "failsafe"}
	case name == n.config:
		return []string{"config", "initialize", "history"}
	case name == n.sync:
		return []string{"sync"}
	case name == n.failover:
		return []string{"failover"}
	}
	return nil
}

// nodesOf are the keys that an object of Patroni's holds, as they would be in another DCS.
func (c *Client) nodesOf(list int, o metav1.Object) map[string]dcs.Node {
	nodes := map[string]dcs.Node{}
	a := o.GetAnnotations()
	node := func(value string) dcs.Node {
		return dcs.Node{Value: value, Version: revisionOf(o), Token: digest(string(o.GetUID()))}
	}
	one := func(key, annotation string) {
		if v, ok := a[annotation]; ok {
			nodes[key] = node(v)
		}
	}
	switch name := o.GetName(); {
	case list == pods:
		one("members/"+name, "status")
	case name == c.names.leader:
		if c.alive(o) {
			n := node(a["leader"])
			n.Token = digest(string(o.GetUID()), a["transitions"], a["acquireTime"])
			nodes["leader"] = n
		}
		one("failsafe", "failsafe")
		if v := jsonOf(a, "optime", "slots", "retain_slots"); v != "" {
			nodes["status"] = node(v)
		}
	case name == c.names.config:
		for _, key := range []string{"config", "initialize", "history"} {
			one(key, key)
		}
	case name == c.names.sync:
		if v := jsonOf(a, "leader", "quorum", "sync_standby"); v != "" {
			nodes["sync"] = node(v)
		}
	case name == c.names.failover:
		if v := jsonOf(a, "leader", "member", "scheduled_at"); v != "" {
			nodes["failover"] = node(v)
		}
	}
	return nodes
}

// alive says whether the object names a leader whose record has changed within its ttl. Patroni
// looks at these five annotations and at no others.
func (c *Client) alive(o metav1.Object) bool {
	a := o.GetAnnotations()
	mark := jsonOf(a, "acquireTime", "leader", "renewTime", "transitions", "ttl")
	ttl := defaultTTL
	if n, err := strconv.ParseUint(a["ttl"], 10, 31); err == nil && n > 0 {
		ttl = time.Duration(n) * time.Second
	}
	alive := c.seen.look(sightKey(kinds, o.GetName()), mark, ttl)
	return alive && a["leader"] != ""
}

// jsonOf makes those annotations that are there into one JSON object, with what is JSON among
// their values as such; "" when none is there.
func jsonOf(annotations map[string]string, names ...string) string {
	fields := map[string]json.RawMessage{}
	for _, name := range names {
		v, ok := annotations[name]
		if !ok {
			continue
		}
		if !json.Valid([]byte(v)) {
			quoted, _ := json.Marshal(v) // a string
			v = string(quoted)
		}
		fields[name] = json.RawMessage(v)
	}
	if len(fields) == 0 {
		return ""
	}
	b, _ := json.Marshal(fields) // valid JSON, each of them
	return string(b)
}

// digest makes a token of what is unique to a creation.
func digest(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return h.Sum64()
}
