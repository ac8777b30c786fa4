package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/window"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/sidecar/doctor"
)

// Status is /status.json: what one sidecar knows of itself and of the whole cluster.
type Status struct {
	Version  string    `json:"version"`
	Time     time.Time `json:"time"`
	Member   string    `json:"member"`
	Scope    string    `json:"scope"`
	Group    *int      `json:"citus_group,omitempty"` // it ends the scope
	SystemID uint64    `json:"system_identifier,string,omitempty"`
	Ready    bool      `json:"ready"`
	Why      string    `json:"why,omitempty"` // why it is not ready
	Socket   string    `json:"socket"`        // that walbaton-wal calls

	Postgres PostgresStatus `json:"postgres"`
	DCS      DCSStatus      `json:"dcs"`
	Baton    BatonStatus    `json:"baton"`
	Archive  ArchiveStatus  `json:"archive"`
	Members  []MemberStatus `json:"members"`
	Restore  *RestoreStatus `json:"restore,omitempty"` // since the sidecar started; absent while nothing was restored

	// RetentionWhy says what keeps retention from expiring anything; known to the holder only.
	RetentionWhy string `json:"retention_why,omitempty"`

	Alarms []archiver.Alarm  `json:"alarms"`
	Failed map[string]string `json:"failed,omitempty"` // file: why it was not shipped when it was tried last

	Started time.Time      `json:"started"`                // of this sidecar
	Rates   *RatesStatus   `json:"rates,omitempty"`        // what this node put into the archive
	Changes []ChangeStatus `json:"role_changes,omitempty"` // the last ones that this sidecar saw, the oldest first
}

// PostgresStatus is the server beside this sidecar.
type PostgresStatus struct {
	State       string `json:"state"`
	Timeline    uint32 `json:"timeline,omitempty"`
	Flush       string `json:"flush_lsn,omitempty"`
	ArchiveMode string `json:"archive_mode,omitempty"`
	Archive     string `json:"archive_command,omitempty"`      // as the server itself says; of one that is not walbaton's the program alone
	Restore     string `json:"restore_command,omitempty"`      // the same
	Pace        uint64 `json:"wal_bytes_per_second,omitempty"` // mean of the last minutes
	Free        uint64 `json:"wal_disk_free_bytes,omitempty"`
}

// DCSStatus is how this sidecar reaches the DCS.
type DCSStatus struct {
	Answers  bool      `json:"answers"`
	Static   bool      `json:"static,omitempty"` // there is none: a single PostgreSQL without Patroni
	REST     bool      `json:"rest,omitempty"`   // it is read through Patroni's REST API: there is no baton, and no other node's record
	Paused   bool      `json:"paused,omitempty"` // Patroni is in maintenance mode
	Error    string    `json:"error,omitempty"`
	Refused  string    `json:"refused,omitempty"` // a request that it does not let us make
	ReadAt   time.Time `json:"read_at,omitzero"`
	Warnings []string  `json:"warnings,omitempty"`
}

// BatonStatus says who ships.
type BatonStatus struct {
	Holder string    `json:"holder,omitempty"`
	Term   uint64    `json:"term,omitempty"`
	Rule   string    `json:"rule,omitempty"`
	Why    string    `json:"why,omitempty"`
	Since  time.Time `json:"since,omitzero"` // known to the holder only
	AsOf   time.Time `json:"as_of,omitzero"` // only when the DCS does not answer: all this was true then
}

// ArchiveStatus is the archive as this node knows it.
type ArchiveStatus struct {
	URL       string    `json:"url"`
	Open      bool      `json:"open"`
	Answers   bool      `json:"answers"`
	Why       string    `json:"why,omitempty"`
	LastTaken time.Time `json:"last_taken,omitzero"` // when it last took a file from this node
	Floor     string    `json:"floor_lsn,omitempty"`
	Timeline  uint32    `json:"line_timeline,omitempty"`
	From      string    `json:"frontier_from_lsn,omitempty"` // the frontier was followed from here
	Frontier  string    `json:"frontier_lsn,omitempty"`
	Segment   string    `json:"frontier_segment,omitempty"` // the last one before the first hole
	Moved     time.Time `json:"frontier_moved,omitzero"`    // when this node saw the frontier where it is for the first time
	Waiting   int       `json:"waiting"`                    // segments here that the archive is not known to have
	Oldest    string    `json:"oldest_missing,omitempty"`
	Since     time.Time `json:"oldest_missing_since,omitzero"` // when PostgreSQL wrote to it last

	Each  []EachArchive `json:"each,omitempty"` // of several; the fields above are about what every required one has
	Lacks int           `json:"lacks"`          // segments that other nodes have to ship; known to the holder only
	Kept  int           `json:"kept"`           // files set aside in keep_dir

	Windows []WindowStatus `json:"windows,omitempty"` // what can be restored: the newest parts of the line without a hole, oldest first; known to the holder only
	Verify  *VerifyStatus  `json:"verify,omitempty"`  // what the holder found when it looked at the archive; known to it only

	Timelines *TimelinesStatus `json:"timelines,omitempty"` // those of the last look at the archive, or else the line alone
}

// RestoreStatus is what a recovery beside this sidecar was given, and what is prefetched for it.
type RestoreStatus struct {
	Window  int   `json:"segments_prefetched"` // given at once
	Waited  int   `json:"segments_waited_for"` // given when prefetching was done
	Archive int   `json:"segments_read"`       // read for the call
	Ahead   int   `json:"ahead"`               // how many segments the window means to be ahead; 0: PostgreSQL does not read from the archive
	Ready   int   `json:"ready"`               // segments that wait for PostgreSQL
	Bytes   int64 `json:"ready_bytes"`
	Unused  int   `json:"unused"` // prefetched, and thrown away
}

func restoreStatus(t window.Tally) *RestoreStatus {
	if t.Window+t.Waited+t.Archive == 0 {
		return nil
	}
	return &RestoreStatus{t.Window, t.Waited, t.Archive, t.Ahead, t.Ready, t.Bytes, t.Unused}
}

// EachArchive is one of several archives.
type EachArchive struct {
	archiver.TargetState
	Frontier string `json:"frontier_lsn,omitempty"` // up to where it has no hole, as this node knows it
}

// MemberStatus is one Patroni member and its sidecar.
type MemberStatus struct {
	Name        string `json:"name"`
	Role        string `json:"role"`    // Patroni's word; "" when nobody knows it
	State       string `json:"state"`   // Patroni's word, or what the server does where there is none
	Primary     bool   `json:"primary"` // its PostgreSQL is one, as its sidecar sees it, whatever Patroni says
	Timeline    uint32 `json:"timeline,omitempty"`
	Leader      bool   `json:"leader"`
	Baton       bool   `json:"baton"`
	Sidecar     bool   `json:"sidecar"` // its sidecar is alive
	Version     string `json:"version,omitempty"`
	Store       bool   `json:"store_answers"`
	ArchiveMode string `json:"archive_mode,omitempty"`
	Restart     string `json:"restart_segment,omitempty"` // from which its server would go on after a restart, as far as it told
	Has         uint64 `json:"has"`                       // good segments in its pg_wal
	Misses      uint64 `json:"misses"`                    // of those, not known to be in the archive
	Keeps       uint64 `json:"misses_bytes"`
	Free        uint64 `json:"wal_disk_free_bytes,omitempty"` // roughly; only while its store is silent, or when it is little
	Full        bool   `json:"wal_disk_full,omitempty"`       // not even one more segment fits
	Address     string `json:"address,omitempty"`
	Host        string `json:"host,omitempty"` // of its PostgreSQL, by Patroni
	Tag         string `json:"tag,omitempty"`  // the value of its tag "walbaton"
}

// Status looks at everything this sidecar knows, without any request.
func (a *app) Status() Status {
	srv := a.pg.Server()
	st := Status{
		Version: version(), Time: time.Now().UTC(), Member: a.cfg.Name, Scope: a.cfg.Scope, Group: a.cfg.Patroni.Group, SystemID: srv.SystemID, Ready: true,
		Postgres: PostgresStatus{State: string(srv.State), Timeline: uint32(srv.Timeline), ArchiveMode: srv.ArchiveMode},
		Archive:  ArchiveStatus{URL: a.main().String()}, Alarms: []archiver.Alarm{}, Members: []MemberStatus{},
	}
	if srv.Flush != 0 {
		st.Postgres.Flush = srv.Flush.String()
	}
	called := a.pg.Commands()
	st.Socket, st.Postgres.Archive, st.Postgres.Restore = a.cfg.Socket, doctor.Shown(called.Archive), doctor.Shown(called.Restore)
	st.Postgres.Pace = uint64(a.pace.perSecond())
	st.Postgres.Free, _ = diskFree(a.pgWAL()) // 0 where there is none
	if err := a.ready(); err != nil {
		st.Ready, st.Why = false, err.Error()
	}
	if s, why := a.current(); s != nil {
		a.reportArchive(&st, s)
	} else {
		st.Archive.Why = why
	}
	a.reportCluster(&st)
	if a.tenure.open() {
		_, st.RetentionWhy = a.retention.state()
	}
	st.Restore = restoreStatus(a.restorer.Prefetched())
	st.Started, st.Rates = a.chronicle.begun.UTC(), a.rates.status()
	st.Changes, st.Archive.Moved = a.chronicle.status()
	return st
}

func (a *app) reportArchive(st *Status, s *site) {
	ar := s.archiver.Archive()
	got := s.archiver.State()
	st.Archive = ArchiveStatus{
		URL: ar.String(), Open: true, Answers: got.StoreAnswers, Why: got.StoreWhy, LastTaken: got.LastTaken.UTC(),
		Floor: ar.FloorOn(a.scope.Line()).String(), Waiting: got.Waiting, Oldest: got.Oldest, Lacks: got.Lacks.Len(), Kept: got.Kept,
	}
	if info, err := os.Stat(filepath.Join(a.pgWAL(), got.Oldest)); got.Oldest != "" && err == nil { // it may be gone by now, or lie in keep_dir
		st.Archive.Since = info.ModTime().UTC()
	}
	if line := a.scope.Last().Line; line.Timeline != 0 {
		st.Archive.Timeline = uint32(line.Timeline)
		st.Archive.Frontier, st.Archive.From = got.Frontier.String(), got.FrontierFrom.String()
		if got.Frontier > got.FrontierFrom {
			st.Archive.Segment = ar.SegmentSize().Before(line.TimelineAt(got.Frontier-1), got.Frontier).String()
		}
	}
	for _, t := range got.Archives {
		one := EachArchive{TargetState: t}
		if t.Frontier != 0 {
			one.Frontier = t.Frontier.String()
		}
		st.Archive.Each = append(st.Archive.Each, one)
	}
	st.Alarms, st.Failed = got.Alarms, got.Failed
	a.reportVerify(st, s, got)
	a.reportTimelines(st, s, got)
}

func (a *app) reportCluster(st *Status) {
	es := a.elector.Status()
	st.DCS = DCSStatus{Answers: a.scope.lens.Alone || !es.Silent, Static: a.scope.lens.Alone, REST: a.cfg.rest(), Error: es.Error, Refused: es.Refused, ReadAt: es.ReadAt.UTC()}
	st.Baton = BatonStatus{Holder: es.Holder, Rule: string(es.Choice.Rule), Why: es.Choice.Why}
	if es.Holding {
		st.Baton.Term, st.Baton.Rule, st.Baton.Since = es.Epoch, string(es.Rule), es.Since.UTC()
	} else if es.Silent && !a.scope.lens.NoDCS {
		st.Baton.AsOf = es.ReadAt.UTC()
	}
	v, ok := a.elector.View()
	if !ok {
		return
	}
	st.DCS.Warnings, st.DCS.Paused = v.Warnings, v.Cluster.Paused
	if st.Baton.Term == 0 {
		st.Baton.Term = v.Baton.Epoch
	}
	names := map[string]bool{}
	for name := range v.Cluster.Members {
		names[name] = true
	}
	for name := range v.Records {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		st.Members = append(st.Members, memberStatus(v, name))
	}
	switch {
	case st.DCS.Static:
		st.alone(a.pg.Server().State)
	case st.DCS.REST:
		st.withoutBaton()
	}
}

// alone says of the only member what its server does, which no Patroni watches.
func (st *Status) alone(s archiver.ServerState) {
	st.Baton.Rule, st.Baton.Why = "", "a single PostgreSQL without Patroni"
	for i := range st.Members {
		m := &st.Members[i]
		m.Role, m.State, m.Leader = "", string(s), false
		switch s {
		case archiver.ServerPrimary:
			m.Role, m.State, m.Leader = "primary", "running", true
		case archiver.ServerStandby:
			m.Role, m.State = "replica", "running"
		}
	}
}

// withoutBaton says that nobody has what does not exist. Of other nodes' sidecars nothing is known.
func (st *Status) withoutBaton() {
	st.Baton = BatonStatus{Why: "Patroni is read through its REST API, so there is none: the running primary ships"}
	for i := range st.Members {
		st.Members[i].Baton = false
	}
}

func memberStatus(v leader.View, name string) MemberStatus {
	p := v.Cluster.Members[name]
	m := MemberStatus{Name: name, Host: p.Host, Role: p.Role, State: p.State, Timeline: p.Timeline, Leader: v.Cluster.Leader == name,
		Baton: v.Baton.Held() && v.Baton.Holder == name, Tag: string(v.Tag(name))}
	r, live := v.Records[name]
	if !live {
		return m
	}
	m.Sidecar, m.Version, m.Store, m.ArchiveMode, m.Address = true, r.Software, r.Store, r.ArchiveMode, r.Address
	m.Has, m.Misses, m.Primary = r.Has.Count(), r.Misses.Count(), r.Role == leader.RolePrimary
	if p := r.Restart; p != nil && wal.SegmentSize(r.SegmentSize).Valid() {
		m.Restart = wal.Segment{Timeline: wal.Timeline(p.Timeline), Size: wal.SegmentSize(r.SegmentSize), No: p.No}.String()
	}
	m.Keeps, m.Free, m.Full = m.Misses*uint64(r.SegmentSize), r.Free, r.Free != 0 && r.Free < uint64(r.SegmentSize)
	if r.Timeline > m.Timeline {
		m.Timeline = r.Timeline
	}
	if m.Role == "" && m.State == "" { // its Patroni is stopped
		switch r.Role {
		case leader.RoleStopped, leader.RoleUnknown:
			m.State = string(r.Role)
		default:
			m.Role, m.State = string(r.Role), "no Patroni"
		}
	}
	return m
}
