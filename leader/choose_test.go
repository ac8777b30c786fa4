package leader

import (
	"strings"
	"testing"
)

func never(n string) func(*scope) *scope {
	return func(s *scope) *scope { return s.member(n, "replica", `,"tags":{"walbaton":"never"}`) }
}

func silent(n int) func(*Record) { return func(r *Record) { r.Silent = n } }

func storeDown(r *Record)     { r.Store = false }
func replicaPolicy(r *Record) { r.Policy = PolicyReplica }

// choices are the rules of DESIGN section 6, each in its own case. want is "member rule"
// and, with an errand, its ranges.
var choices = []struct {
	name  string
	scope func(*scope) *scope
	want  string
}{
	{"the leader by default", func(s *scope) *scope { return s }, "n1 policy"},
	{"the leader, though another holds it", func(s *scope) *scope { return s.holds("n2", "", "") }, "n1 policy"},
	{"the leader of a standby cluster", func(s *scope) *scope {
		s.nodes["config"] = `{"standby_cluster":{"host":"a"}}`
		return s.member("n1", "standby_leader", "")
	}, "n1 policy"},

	// Rule 1: who may.
	{"leader without a sidecar: nobody", func(s *scope) *scope { return s.gone("n1") }, " nobody"},
	{"leader without a sidecar: the holder stays", func(s *scope) *scope { return s.gone("n1").holds("n2", "", "") }, "n2 holder"},
	{"leader without a sidecar: the last holder again", func(s *scope) *scope { return s.gone("n1").held("n3", 9, "", "").held("n2", 7, "", "") }, "n3 holder"},
	{"leader's store is silent", func(s *scope) *scope { return s.change("n1", storeDown) }, " nobody"},
	{"holder's store is silent, another's answers", func(s *scope) *scope { return s.change("n1", storeDown).holds("n1", "", "") }, " nobody"},
	{"all stores are silent: the holder stays", func(s *scope) *scope { return s.all(storeDown).holds("n1", "", "") }, "n1 holder"},
	// Several archives.
	{"an archive is silent to all: the leader all the same", func(s *scope) *scope { return s.all(silent(1)) }, "n1 policy"},
	{"an archive is silent to the leader alone: nobody, and then who reaches all", func(s *scope) *scope { return s.change("n1", silent(1)).holds("n1", "", "") }, " nobody"},
	{"the holder reaches all, the leader does not: it stays", func(s *scope) *scope { return s.change("n1", silent(1)).holds("n2", "", "") }, "n2 holder"},
	{"an archive is silent to a replica: it is not among the replicas", func(s *scope) *scope { return s.all(replicaPolicy).change("n2", silent(1)) }, "n3 policy"},
	{"who has what the holder lacks ships it to the archives that it reaches", func(s *scope) *scope {
		return s.change("n2", silent(1)).holds("n1", "1:5", "").has("n2", "1:5")
	}, "n2 errand 1:5"},
	{"leader tagged never", func(s *scope) *scope { return never("n1")(s).holds("n2", "", "") }, "n2 holder"},
	{"leader tagged never, and the holder reads the archive only: one that streams", func(s *scope) *scope {
		s.nodes["members/n3"] = memberKey("n3", "replica", `,"replication_state":"in archive recovery"`)
		return never("n1")(s).holds("n3", "", "")
	}, "n2 policy"},
	{"leader tagged never, and nobody streams: the holder stays", func(s *scope) *scope {
		for _, n := range []string{"n2", "n3"} {
			s.nodes["members/"+n] = memberKey(n, "replica", `,"replication_state":"in archive recovery"`)
		}
		return never("n1")(s).holds("n3", "", "")
	}, "n3 holder"},
	{"holder tagged never", func(s *scope) *scope { return never("n2")(s).gone("n1").holds("n2", "", "") }, " nobody"},
	{"holder tagged never, all stores silent", func(s *scope) *scope { return never("n2")(s).all(storeDown).holds("n2", "", "") }, " nobody"},
	{"tag from the record while Patroni's key is gone", func(s *scope) *scope {
		delete(s.nodes, "members/n1")
		return s.change("n1", func(r *Record) { r.Tag = TagNever })
	}, " nobody"},
	{"Patroni's key is newer than the record's tag", func(s *scope) *scope {
		return s.change("n1", func(r *Record) { r.Tag = TagNever })
	}, "n1 policy"},
	{"leader of another cluster", func(s *scope) *scope {
		return s.change("n1", func(r *Record) { r.SystemID = 5 }).holds("n2", "", "")
	}, "n2 holder"},
	{"leader that does not know its cluster", func(s *scope) *scope { return s.change("n1", func(r *Record) { r.SystemID = 0 }) }, " nobody"},
	{"leader of a newer version", func(s *scope) *scope { s.raw["n1"] = `{"version":2,"store":true}`; return s }, " nobody"},
	{"leader's record is junk", func(s *scope) *scope { s.raw["n1"] = `]`; return s.holds("n3", "", "") }, "n3 holder"},

	// No leader.
	{"no leader: the holder stays", func(s *scope) *scope { delete(s.nodes, "leader"); return s.holds("n2", "", "") }, "n2 holder"},
	{"no leader and a free baton", func(s *scope) *scope { delete(s.nodes, "leader"); return s }, " nobody"},
	{"no leader: the errand counts all the same", func(s *scope) *scope {
		delete(s.nodes, "leader")
		return s.holds("n2", "1:4", "").has("n3", "1:1-9")
	}, "n3 errand 1:4"},
	{"no Patroni key at all", func(s *scope) *scope { clear(s.nodes); return s.holds("n2", "", "") }, "n2 holder"},

	// Rule 2: who has what the holder lacks.
	{"another node has it", func(s *scope) *scope { return s.holds("n1", "1:2-5", "").has("n2", "1:4-9") }, "n2 errand 1:4-5"},
	{"the first segment decides", func(s *scope) *scope {
		return s.holds("n1", "1:2-5;2:1", "").has("n2", "1:3-9;2:1").has("n3", "1:2")
	}, "n3 errand 1:2"},
	{"equal: by name", func(s *scope) *scope {
		return s.holds("n1", "1:2-5", "").has("n2", "1:2").has("n3", "1:2-5")
	}, "n2 errand 1:2"},
	{"equal: the policy's choice first", func(s *scope) *scope {
		return s.leads("n3").holds("n1", "1:2-5", "").has("n2", "1:2").has("n3", "1:2")
	}, "n3 errand 1:2"},
	{"earlier beats the policy's choice", func(s *scope) *scope {
		return s.leads("n3").holds("n1", "1:2-5", "").has("n2", "1:2").has("n3", "1:3-5")
	}, "n2 errand 1:2"},
	{"nobody has it", func(s *scope) *scope { return s.holds("n1", "1:2-5", "").has("n2", "1:6-9") }, "n1 policy"},
	{"what nobody has is skipped", func(s *scope) *scope { return s.holds("n1", "1:2-5,8", "").has("n2", "1:6-9") }, "n2 errand 1:8"},
	{"its store is silent", func(s *scope) *scope {
		return s.holds("n1", "1:2", "").has("n2", "1:2").change("n2", storeDown)
	}, "n1 policy"},
	{"it is tagged never", func(s *scope) *scope { return never("n2")(s.holds("n1", "1:2", "").has("n2", "1:2")) }, "n1 policy"},
	{"a stopped former primary has it", func(s *scope) *scope {
		delete(s.nodes, "members/n2")
		return s.holds("n1", "1:2", "").has("n2", "1:2").change("n2", func(r *Record) { r.Role = RoleStopped })
	}, "n2 errand 1:2"},
	{"it has tried a short while ago", func(s *scope) *scope {
		return s.holds("n1", "1:2-3", "").has("n2", "1:2-3").change("n2", func(r *Record) { r.Tried = Ranges{{1, 2, 2}} })
	}, "n2 errand 1:3"},
	{"the holder has it after all", func(s *scope) *scope { return s.holds("n1", "1:2", "").has("n1", "1:2").has("n2", "1:2") }, "n1 policy"},
	{"the last holder's lack counts while the baton is free", func(s *scope) *scope {
		return s.held("n1", 4, "1:2", "").has("n3", "1:2")
	}, "n3 errand 1:2"},
	{"only the last one's", func(s *scope) *scope {
		return s.held("n1", 4, "1:2", "").held("n2", 6, "1:7", "").has("n3", "1:2")
	}, "n1 policy"},
	{"not an earlier holder's while another holds it", func(s *scope) *scope {
		return s.held("n1", 4, "1:2", "").holds("n2", "", "").has("n3", "1:2")
	}, "n1 policy"},
	{"a holder without a record lacks nothing known", func(s *scope) *scope {
		return s.holds("n2", "1:2", "").has("n3", "1:2").gone("n2")
	}, "n1 policy"},

	// Rule 2: the errand.
	{"the errand goes on", func(s *scope) *scope { return s.holds("n2", "", "1:4-5").has("n2", "1:1-9") }, "n2 errand 1:4-5"},
	{"a new leader does not end it", func(s *scope) *scope { return s.leads("n3").holds("n2", "", "1:4").has("n2", "1:4") }, "n2 errand 1:4"},
	{"what it lists no more is no errand", func(s *scope) *scope { return s.holds("n2", "", "1:4-5").has("n2", "1:1-3") }, "n1 policy"},
	{"done: back to the policy", func(s *scope) *scope { return s.holds("n2", "", "").has("n2", "1:1-9") }, "n1 policy"},
	{"its put failed", func(s *scope) *scope {
		return s.holds("n2", "", "1:4").has("n2", "1:4").change("n2", storeDown)
	}, "n1 policy"},
	{"its own lack waits for the errand", func(s *scope) *scope {
		return s.holds("n2", "1:1", "1:4").has("n2", "1:4").has("n3", "1:1")
	}, "n2 errand 1:4"},
	{"cut off in an errand: again", func(s *scope) *scope { return s.held("n2", 8, "", "1:4").has("n2", "1:4") }, "n2 errand 1:4"},

	// Rule 3: replicas.
	{"replica: by name", func(s *scope) *scope { return s.all(replicaPolicy) }, "n2 policy"},
	{"replica: the holder among equals", func(s *scope) *scope { return s.all(replicaPolicy).holds("n3", "", "") }, "n3 policy"},
	{"replica: designated first", func(s *scope) *scope {
		return s.all(replicaPolicy).holds("n2", "", "").member("n3", "replica", `,"tags":{"walbaton":"designated"}`)
	}, "n3 policy"},
	{"replica: designated, but it does not stream", func(s *scope) *scope {
		s.nodes["members/n3"] = memberKey("n3", "replica", `,"replication_state":"in archive recovery","tags":{"walbaton":"designated"}`)
		return s.all(replicaPolicy).holds("n2", "", "")
	}, "n2 policy"},
	{"replica: too far behind", func(s *scope) *scope {
		return s.all(replicaPolicy).member("n2", "replica", `,"xlog_location":98999`)
	}, "n3 policy"},
	{"replica: just within max_lag", func(s *scope) *scope {
		return s.all(replicaPolicy).member("n2", "replica", `,"xlog_location":99000`)
	}, "n2 policy"},
	{"replica: ahead of the leader's old position", func(s *scope) *scope {
		return s.all(replicaPolicy).member("n2", "replica", `,"xlog_location":200000`)
	}, "n2 policy"},
	{"replica: the status key is newer than the leader's", func(s *scope) *scope {
		s.nodes["status"] = `{"optime":200000}`
		return s.all(replicaPolicy)
	}, "n1 policy"},
	{"replica: an old Patroni does not say that it streams", func(s *scope) *scope {
		s.nodes["members/n2"] = memberKey("n2", "replica", `,"version":"3.0.2"`)
		return s.all(replicaPolicy)
	}, "n2 policy"},
	{"replica: its sidecar says that it does not stream", func(s *scope) *scope {
		s.nodes["members/n2"] = memberKey("n2", "replica", `,"version":"3.0.2"`)
		return s.all(replicaPolicy).change("n2", func(r *Record) { r.Receiver = ReceiverNone })
	}, "n3 policy"},
	{"replica: its sidecar says that it is stopped", func(s *scope) *scope {
		return s.all(replicaPolicy).change("n2", func(r *Record) { r.Role = RoleStopped })
	}, "n3 policy"},
	{"replica: its sidecar says that it streams, and Patroni that it is far behind", func(s *scope) *scope {
		return s.all(replicaPolicy).member("n2", "replica", `,"xlog_location":5`).change("n2", func(r *Record) { r.Receiver = ReceiverStreams })
	}, "n3 policy"},
	{"replica: since 3.0.4 silence means that it does not stream", func(s *scope) *scope {
		s.nodes["members/n2"] = memberKey("n2", "replica", "")
		return s.all(replicaPolicy)
	}, "n3 policy"},
	{"replica: none qualifies, so the leader", func(s *scope) *scope {
		return s.all(replicaPolicy).change("n2", storeDown).gone("n3")
	}, "n1 policy"},
	{"replica: no leader, so the holder", func(s *scope) *scope {
		delete(s.nodes, "leader")
		return s.all(replicaPolicy).holds("n3", "", "")
	}, "n3 holder"},
	{"the leader's policy is in force", func(s *scope) *scope { return s.change("n1", replicaPolicy).holds("n1", "", "") }, "n2 policy"},
	{"also when a holder with another one would send the baton back", func(s *scope) *scope {
		return s.change("n1", replicaPolicy).holds("n2", "", "")
	}, "n2 policy"},
	{"not the holder's", func(s *scope) *scope { return s.change("n3", replicaPolicy).holds("n3", "", "") }, "n1 policy"},
	{"but while the leader's sidecar is gone", func(s *scope) *scope {
		return s.gone("n1").change("n3", replicaPolicy).holds("n3", "", "")
	}, "n3 policy"},
	{"nobody else's", func(s *scope) *scope { return s.gone("n1").change("n2", replicaPolicy).holds("n3", "", "") }, "n3 holder"},
}

// While a new policy is rolled out the baton comes to rest, whoever leads, whoever has it, whoever has the new policy already,
// and with or without the leader's sidecar.
func TestPoliciesThatDifferComeToRest(t *testing.T) {
	members := []string{"n1", "n2", "n3"}
	for mask := range 8 {
		for _, leader := range members {
			for _, first := range members {
				for _, dead := range []bool{false, true} {
					holder := first
					for moves := 0; ; moves++ {
						s := newScope(t).member("n1", "replica", "").leads(leader)
						for i, n := range members {
							if mask>>i&1 != 0 {
								s.change(n, replicaPolicy)
							}
						}
						if dead {
							s.gone(leader)
						}
						next := Choose(s.holds(holder, "", "").view("n1")).Member
						if next == "" || next == holder {
							break
						}
						if moves == 3 {
							t.Errorf("policy replica at %03b of n3 n2 n1, %s leads (its sidecar is gone: %v), %s began: the baton goes on and on", mask, leader, dead, first)
							break
						}
						holder = next
					}
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range choices {
		t.Run(c.name, func(t *testing.T) {
			s := c.scope(newScope(t))
			selves := []string{"n1", "n2", "n3"}
			if s.nodes["initialize"] != "" {
				selves = append(selves, "elsewhere")
			}
			for _, self := range selves {
				got := Choose(s.view(self))
				text := strings.TrimRight(got.Member+" "+string(got.Rule)+" "+got.Errand.String(), " ")
				if text != c.want {
					t.Errorf("seen from %s: %q (%s), want %q", self, text, got.Why, c.want)
				}
				if got.Why == "" {
					t.Errorf("seen from %s: no reason is given", self)
				}
			}
		})
	}
}
