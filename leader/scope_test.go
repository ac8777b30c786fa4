package leader

import (
	"fmt"
	"testing"
	"time"

	"github.com/walbaton/walbaton/leader/dcs"
)

const testSystem = 7268616322854375442

// scope is the content of a DCS under construction.
type scope struct {
	t       testing.TB
	nodes   map[string]string
	records map[string]Record
	raw     map[string]string
	baton   dcs.Lease
}

// newScope is a healthy cluster: n1 leads on timeline 1, n2 and n3 stream, each has a
// sidecar, and the baton is free.
func newScope(t testing.TB) *scope {
	s := &scope{t: t, nodes: map[string]string{"initialize": fmt.Sprint(testSystem)}, records: map[string]Record{}, raw: map[string]string{}}
	for _, n := range []string{"n1", "n2", "n3"} {
		s.member(n, "replica", "")
		s.records[n] = goodRecord(n)
	}
	return s.leads("n1")
}

func goodRecord(member string) Record {
	return Record{Version: 1, Member: member, SystemID: testSystem, Role: RoleReplica, Timeline: 1, Store: true, Policy: PolicyPrimary, MaxLag: 1000}
}

func (s *scope) leads(n string) *scope {
	s.nodes["leader"] = n
	s.member(n, "primary", "")
	r := s.records[n]
	r.Role = RolePrimary
	s.records[n] = r
	return s
}

// member writes a Patroni member key at LSN 100000; extra is more JSON.
func (s *scope) member(n, role, extra string) *scope {
	state := ""
	if role == "replica" {
		state = `,"replication_state":"streaming"`
	}
	s.nodes["members/"+n] = memberKey(n, role, state+extra)
	return s
}

func memberKey(n, role, extra string) string {
	return fmt.Sprintf(`{"conn_url":"postgres://%s:5432/postgres","api_url":"http://%s:8008/patroni","state":"running","role":"%s","version":"4.1.4","xlog_location":100000,"timeline":1%s}`, n, n, role, extra)
}

func (s *scope) change(n string, f func(*Record)) *scope {
	r := s.records[n]
	f(&r)
	s.records[n] = r
	return s
}

func (s *scope) all(f func(*Record)) *scope {
	for _, n := range sortedKeys(s.records) {
		s.change(n, f)
	}
	return s
}

func (s *scope) has(n, text string) *scope {
	return s.change(n, func(r *Record) { r.Has = ranges(s.t, text) })
}

// holds gives n the baton, with what it lacks and its errand.
func (s *scope) holds(n, lacks, errand string) *scope {
	s.baton = dcs.Lease{Holder: n, TTL: 15 * time.Second, Epoch: 5}
	return s.held(n, 5, lacks, errand)
}

// held leaves n's record as that of the last holder.
func (s *scope) held(n string, term uint64, lacks, errand string) *scope {
	return s.change(n, func(r *Record) {
		r.Holder = &Holder{Term: term, Lacks: ranges(s.t, lacks), Errand: ranges(s.t, errand)}
	})
}

func (s *scope) gone(n string) *scope {
	delete(s.records, n)
	return s
}

func (s *scope) reading() dcs.Reading {
	r := dcs.Reading{Nodes: map[string]dcs.Node{}, Records: map[string]dcs.Node{}, Baton: s.baton, Revision: "1"}
	for k, v := range s.nodes {
		r.Nodes[k] = dcs.Node{Value: v, Version: 1, Token: 1}
	}
	for n, rec := range s.records {
		text, err := rec.Encode()
		if err != nil {
			s.t.Fatal(err)
		}
		r.Records[n] = dcs.Node{Value: text, Version: 1, Token: 1}
	}
	for n, text := range s.raw {
		r.Records[n] = dcs.Node{Value: text, Version: 1, Token: 1}
	}
	return r
}

func (s *scope) view(self string) View { return NewView(self, s.reading(), time.Unix(0, 0)) }
