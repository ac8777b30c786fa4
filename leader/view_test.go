package leader

import (
	"fmt"
	"testing"
)

func TestLine(t *testing.T) {
	history := func(s *scope, text string) *scope { s.nodes["history"] = text; return s }
	on := func(tl uint32, forks ...Fork) func(*Record) {
		return func(r *Record) { r.Timeline, r.History = tl, forks }
	}
	for _, c := range []struct {
		name  string
		scope func(*scope) *scope
		want  string
	}{
		{"from the leader's record", func(s *scope) *scope { return s.change("n1", on(3, Fork{1, 10}, Fork{2, 20})) }, "[{1 10} {2 20}] 3 true"},
		{"the leader's sidecar does not know its history yet", func(s *scope) *scope {
			return history(s.change("n1", on(2)), `[[1,10,"x"]]`)
		}, "[{1 10}] 2 true"},
		{"and nobody does", func(s *scope) *scope { return s.change("n1", on(2)).change("n2", on(2)) }, "[] 0 false"},
		{"not from a replica's", func(s *scope) *scope { return s.change("n2", on(3, Fork{1, 10}, Fork{2, 20})) }, "[] 1 true"},
		{"from the member key", func(s *scope) *scope {
			return history(s.gone("n1").member("n1", "primary", `,"timeline":3`), `[[1,10,"x"],[2,20,"y"]]`)
		}, "[{1 10} {2 20}] 3 true"},
		{"the history key is behind", func(s *scope) *scope {
			return history(s.gone("n1").member("n1", "primary", `,"timeline":3`), `[[1,10,"x"]]`)
		}, "[] 0 false"},
		{"then another member on that timeline says it", func(s *scope) *scope {
			return history(s.gone("n1").member("n1", "primary", `,"timeline":3`), `[[1,10,"x"]]`).change("n2", on(3, Fork{1, 10}, Fork{2, 20}))
		}, "[{1 10} {2 20}] 3 true"},
		{"unless two disagree", func(s *scope) *scope {
			return s.gone("n1").member("n1", "primary", `,"timeline":3`).change("n2", on(3, Fork{1, 10}, Fork{2, 20})).change("n3", on(3, Fork{1, 10}, Fork{2, 21}))
		}, "[] 0 false"},
		{"a history beyond the timeline is cut", func(s *scope) *scope {
			return history(s.gone("n1").member("n1", "primary", `,"timeline":2`), `[[1,10,"x"],[2,20,"y"]]`)
		}, "[{1 10}] 2 true"},
		{"a recovery went back behind the beginning of timeline 2", func(s *scope) *scope {
			return history(s.gone("n1").member("n1", "primary", `,"timeline":4`), `[[1,20,"x"],[2,10,"y"],[3,30,"z"]]`)
		}, "[{1 10} {3 30}] 4 true"},
		{"the record is behind the member key", func(s *scope) *scope {
			return history(s.member("n1", "primary", `,"timeline":2`), `[[1,10,"x"]]`)
		}, "[{1 10}] 2 true"},
		{"and nobody knows more", func(s *scope) *scope { return s.member("n1", "primary", `,"timeline":2`) }, "[] 0 false"},
		{"the leader's sidecar belongs to another cluster", func(s *scope) *scope {
			return s.change("n1", on(7)).change("n1", func(r *Record) { r.SystemID = 3 })
		}, "[] 1 true"},
		{"no leader", func(s *scope) *scope { delete(s.nodes, "leader"); return s }, "[] 0 false"},
		{"a leader without keys", func(s *scope) *scope { delete(s.nodes, "members/n1"); return s.gone("n1") }, "[] 0 false"},
		{"a leader that says no timeline", func(s *scope) *scope {
			s.nodes["members/n1"] = `{"role":"primary"}`
			return s.gone("n1")
		}, "[] 0 false"},
	} {
		forks, timeline, ok := c.scope(newScope(t)).view("n2").Line()
		if got := fmt.Sprint(forks, timeline, ok); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNobody(t *testing.T) {
	s := newScope(t).holds("n1", "1:2-5,9", "").has("n2", "1:3").has("n3", "1:5-7")
	if got := s.view("n3").Nobody().String(); got != "1:2,4,9" {
		t.Errorf("nobody has %s", got)
	}
	if got := newScope(t).view("n1").Nobody(); !got.Empty() {
		t.Errorf("without a holder nobody has %s", got)
	}
}

func TestViewWarns(t *testing.T) {
	s := newScope(t)
	s.raw["n2"], s.raw["n3"] = "junk", `{"version":9}`
	if got := s.view("n1").Warnings; len(got) != 2 {
		t.Errorf("warnings: %q", got)
	}
	clear(s.nodes)
	if v := s.view("n1"); len(v.Warnings) != 3 || v.SystemID() != testSystem {
		t.Errorf("without Patroni: warnings %q, system %d", v.Warnings, v.SystemID())
	}
}

// The tag is Patroni's word for a member, whatever YAML made of it, and the record's while Patroni says nothing.
func TestTag(t *testing.T) {
	s := newScope(t).member("n1", "replica", `,"tags":{"walbaton":"never"}`).member("n2", "replica", `,"tags":{"walbaton":true,"nofailover":true}`)
	delete(s.nodes, "members/n3")
	v := s.change("n3", func(r *Record) { r.Tag = TagDesignated }).view("n1")
	for member, want := range map[string]Tag{"n1": TagNever, "n2": "true", "n3": TagDesignated, "n4": ""} {
		if got := v.Tag(member); got != want {
			t.Errorf("%s: %q, want %q", member, got, want)
		}
	}
	if Tag("true").Known() || !TagNever.Known() || !TagDesignated.Known() {
		t.Error("the known tags are never and designated")
	}
}
