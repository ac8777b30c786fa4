package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
	"github.com/walbaton/walbaton/leader/dcs"
	"github.com/walbaton/walbaton/leader/patroni/restapi"
	"github.com/walbaton/walbaton/sidecar/doctor"
)

// gatherer asks, and writes down what it was told.
type gatherer struct {
	cfg   Config
	here  bool // this machine is that of member cfg.Name
	facts *doctor.Facts

	dcs  dcs.DCS         // nil: it cannot be opened, or there is none
	rest *restapi.Client // nil: the same
	apis map[string]string
	page map[string]string // addresses of the sidecars
}

func (g *gatherer) close() {
	if c, ok := g.dcs.(io.Closer); ok {
		_ = c.Close() // nothing was written
	}
	if g.rest != nil {
		_ = g.rest.Close()
	}
}

// members finds out who belongs to the cluster: from the DCS, and where that does not answer from Patroni's REST API.
func (g *gatherer) members(ctx context.Context) {
	g.apis, g.page = map[string]string{}, map[string]string{}
	if g.cfg.static() {
		g.add(doctor.Node{Name: g.cfg.Name, Leader: true}, localAddress(g.cfg.Listen))
		return
	}
	var view leader.View
	var cluster restapi.Cluster
	var dcsErr, restErr error
	var tasks sync.WaitGroup
	tasks.Go(func() { view, dcsErr = g.readDCS(ctx) })
	tasks.Go(func() { cluster, restErr = g.readREST(ctx) })
	tasks.Wait()
	if dcsErr != nil {
		g.facts.DCS.Err, g.facts.DCS.Refused = said(dcsErr), errors.Is(dcsErr, fs.ErrPermission)
	} else {
		g.useView(view)
	}
	for _, m := range cluster.Members {
		g.apis[m.Name] = cmp.Or(g.apis[m.Name], m.URL)
		if dcsErr != nil {
			if m.Leads() {
				g.facts.DCS.Leader, g.facts.DCS.Timeline = m.Name, m.Timeline
			}
			g.facts.DCS.Paused = cluster.Paused
			g.add(doctor.Node{Name: m.Name, State: m.State, Host: m.Host, Port: m.Port, Leader: m.Leads()}, g.guess(m.Host))
		}
	}
	if restErr != nil {
		g.facts.Patroni.Err = said(restErr)
	}
	if len(g.facts.Nodes) == 0 && g.here && g.cfg.Name != "" { // nobody tells of others
		g.add(doctor.Node{Name: g.cfg.Name}, localAddress(g.cfg.Listen))
	}
}

// add takes a member. One on this machine is reached by its own addresses.
func (g *gatherer) add(n doctor.Node, page string) {
	if n.Here = g.here && n.Name == g.cfg.Name; n.Here {
		page = localAddress(g.cfg.Listen)
		n.Sidecar.Socket = g.cfg.Socket
	}
	g.page[n.Name] = page
	g.facts.Nodes = append(g.facts.Nodes, n)
}

// guess is where a sidecar's page should be that nobody tells the address of: all are configured alike.
func (g *gatherer) guess(host string) string {
	_, port, _ := net.SplitHostPort(g.cfg.Listen) // the setting was checked
	return net.JoinHostPort(host, port)
}

// readDCS reads the scope once.
func (g *gatherer) readDCS(ctx context.Context) (leader.View, error) {
	d, err := openDCS(g.cfg)
	if err != nil {
		g.facts.DCS.Name = "the DCS"
		return leader.View{}, err
	}
	g.dcs, g.facts.DCS.Name = d, d.String()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	at := time.Now()
	r, err := d.Read(ctx)
	return leader.NewView(g.cfg.Name, r, at), err
}

// lookAgain reads the records once more where a node seems to have a segment alone. Not all records are of the same moment, so the segment
// that was finished just now seems to be one node's alone until the others have written theirs.
func (g *gatherer) lookAgain(ctx context.Context) {
	if g.dcs == nil || !slices.ContainsFunc(g.facts.Nodes, func(n doctor.Node) bool { return !g.facts.Alone(n).Empty() }) {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(recordTime):
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	at := time.Now()
	if r, err := g.dcs.Read(ctx); err == nil {
		g.agree(leader.NewView(g.cfg.Name, r, at))
	}
}

// agree keeps of what a node misses that which both views say, and of what it has that which one of them does.
func (g *gatherer) agree(later leader.View) {
	for i := range g.facts.Nodes {
		s := &g.facts.Nodes[i].Sidecar
		if r, live := later.Records[g.facts.Nodes[i].Name]; s.Live && live {
			s.Misses, s.Has = s.Misses.Intersect(r.Misses), s.Has.Union(r.Has)
		}
	}
}

// useView takes what the DCS says of the members.
func (g *gatherer) useView(v leader.View) {
	d := &g.facts.DCS
	d.Warnings, d.SystemID, d.Leader, d.Paused = v.Warnings, v.Cluster.SystemID, v.Cluster.Leader, v.Cluster.Paused
	g.facts.StandbyCluster = v.Cluster.StandbyCluster
	if v.Baton.Held() {
		d.Holder = v.Baton.Holder
	}
	d.Timeline = v.LeaderTimeline()
	d.Nobody = v.Nobody()
	for _, name := range memberNames(v) {
		m, r := v.Cluster.Members[name], v.Records[name]
		_, live := v.Records[name]
		n := doctor.Node{Name: name, Leader: name == v.Cluster.Leader, State: m.State, Host: m.Host, Port: m.Port, Tag: string(v.Tag(name))}
		g.apis[name] = m.APIURL
		if base, err := baseOf(m.APIURL); err == nil {
			g.apis[name] = base
		}
		if live {
			n.Sidecar = doctor.Sidecar{Live: true, Readable: r.Readable(), Record: r.Version, Version: r.Software, SystemID: r.SystemID, Has: r.Has, Misses: r.Misses, ArchiveMode: r.ArchiveMode, Free: r.Free}
			if s := wal.SegmentSize(r.SegmentSize); s.Valid() {
				d.SegmentSize = s
			}
		}
		page := g.guess(m.Host)
		if host, port, err := net.SplitHostPort(r.Address); err == nil {
			if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
				host = m.Host // it listens on all of its addresses
			}
			page = net.JoinHostPort(host, port)
		}
		g.add(n, page)
	}
}

// readREST asks this member's REST API, or the one that the configuration names, for the members and the dynamic configuration.
func (g *gatherer) readREST(ctx context.Context) (restapi.Cluster, error) {
	base := g.cfg.Patroni.RestAPI.URL()
	if base == "" {
		return restapi.Cluster{}, errors.New("no REST API is named in Patroni's configuration")
	}
	c, err := restapi.New(restapi.ConfigOf(g.cfg.Patroni))
	if err != nil {
		return restapi.Cluster{}, err
	}
	g.rest = c
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cluster, err := c.Cluster(ctx, base)
	if err == nil {
		g.facts.Patroni.Dynamic, err = c.Dynamic(ctx, base)
	}
	return cluster, err
}

// nodes asks every node's server, REST API and sidecar, and every archive.
func (g *gatherer) nodes(ctx context.Context) {
	all := g.facts.Nodes
	var tasks sync.WaitGroup
	for i := range all {
		n, known := &all[i], all[i]
		tasks.Go(func() { n.SQL = g.askSQL(ctx, known) })
		tasks.Go(func() { n.REST = g.askNode(ctx, known.Name) })
		tasks.Go(func() { n.Sidecar = g.askSidecar(ctx, known.Name, known.Sidecar) })
	}
	g.archives(ctx, &tasks)
	tasks.Wait()
	g.rereadDynamic(ctx)
	for _, n := range all {
		if n.Here && g.facts.Local != nil {
			lookAtClient(ctx, g.facts.Local, n)
		}
	}
}

// rereadDynamic asks the others for the dynamic configuration where the member that the configuration names does not answer.
func (g *gatherer) rereadDynamic(ctx context.Context) {
	if g.rest == nil || g.facts.Patroni.Dynamic != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	for _, n := range g.facts.Nodes {
		if n.REST.Err != "" {
			continue
		}
		if d, err := g.rest.Dynamic(ctx, g.apis[n.Name]); err == nil {
			g.facts.Patroni.Dynamic, g.facts.Patroni.Err = d, ""
			return
		}
	}
}

func (g *gatherer) askNode(ctx context.Context, name string) doctor.NodeREST {
	base := g.apis[name]
	if g.rest == nil || base == "" {
		return doctor.NodeREST{Err: "nobody says where it is"}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	n, err := g.rest.Node(ctx, base)
	if err != nil {
		return doctor.NodeREST{Err: said(err)}
	}
	return doctor.NodeREST{Version: n.Patroni.Version, Server: n.ServerVersion, Pending: bool(n.Pending), Reasons: n.PendingSettings()}
}

// askSidecar adds to what the record says what the page of the sidecar does.
func (g *gatherer) askSidecar(ctx context.Context, name string, s doctor.Sidecar) doctor.Sidecar {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	s.Address = g.page[name]
	begin := time.Now()
	st, _, err := g.cfg.askStatus(ctx, s.Address)
	took := time.Since(begin)
	switch {
	case err != nil:
		s.Err = said(err)
		return s
	case st.Member != name || st.Scope != g.cfg.Scope:
		s.Err = fmt.Sprintf("%s is the sidecar of %s of cluster %s", s.Address, st.Member, st.Scope)
		return s
	}
	s.Offset, s.Exact = st.Time.Sub(begin.Add(took/2)), took/2+time.Millisecond
	s.Version, s.Ready, s.Why, s.Open, s.Store = st.Version, st.Ready, st.Why, st.Archive.Open, st.Archive.Answers
	s.Socket, s.Pace, s.Free, s.Retention = cmp.Or(st.Socket, s.Socket), st.Postgres.Pace, st.Postgres.Free, st.RetentionWhy
	s.SystemID = cmp.Or(st.SystemID, s.SystemID)
	s.ArchiveMode, s.ArchiveCommand, s.RestoreCommand = st.Postgres.ArchiveMode, st.Postgres.Archive, st.Postgres.Restore
	s.Waiting, s.Oldest = st.Archive.Waiting, st.Archive.Oldest
	if !st.Archive.Since.IsZero() {
		s.Since = st.Time.Sub(st.Archive.Since)
	}
	s.DCSErr = st.dcsTrouble()
	for _, a := range st.Alarms {
		s.Alarms = append(s.Alarms, doctor.Alarm{Name: a.Name, Why: a.Why})
	}
	if v := st.Archive.Verify; v != nil {
		s.Verify = &doctor.Verify{At: v.At, Problems: v.problems(), Acknowledged: v.KnownHoles, Failed: v.Failed}
	}
	if len(st.Archive.Windows) > 0 {
		s.Window = st.window()
	}
	return s
}

// dcsTrouble is what keeps a sidecar from the DCS, "" nothing.
func (st Status) dcsTrouble() string {
	switch {
	case st.DCS.Static || st.DCS.REST && st.DCS.Answers:
		return ""
	case !st.DCS.Answers:
		return "the DCS does not answer it: " + st.DCS.Error
	}
	if st.DCS.Refused != "" {
		return "the DCS refuses a request: " + st.DCS.Refused
	}
	return ""
}

// settingsQuery asks for what decides what becomes of WAL, and for all that waits for a restart.
const settingsQuery = `
select name, setting, pending_restart, coalesce(sourcefile, '') from pg_settings
 where pending_restart or name in ('archive_mode', 'archive_command', 'archive_library', 'restore_command')`

const aboutQuery = `
select current_setting('server_version_num')::int, (select system_identifier from pg_control_system()), extract(epoch from clock_timestamp())::float8,
       pg_is_in_recovery()`

// askSQL asks a node's server what is in effect.
func (g *gatherer) askSQL(ctx context.Context, n doctor.Node) doctor.SQL {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	r := newSQLReader(g.cfg)
	defer r.close()
	var p postmaster
	switch {
	case n.Here:
		files := readServerFiles(g.cfg.Postgres.DataDir)
		switch {
		case files.err != nil: // the data directory's own line says it
		case !files.running:
			return doctor.SQL{Err: "it does not run"}
		case !files.connects():
			return doctor.SQL{Err: "it does not accept connections"}
		}
		p = files.postmaster
	case n.Host == "":
		return doctor.SQL{Err: "nobody says where it is"}
	default:
		r.dsn = superuserDSN(g.cfg.Patroni.PostgreSQL, n.Host, strconv.Itoa(cmp.Or(n.Port, 5432)))
	}
	conn, err := r.connect(ctx, p)
	if err != nil {
		return doctor.SQL{Err: sqlReason(err)}
	}
	r.conn = conn
	out := doctor.SQL{Settings: map[string]doctor.Setting{}}
	var id int64
	var clock float64
	begin := time.Now()
	if err := conn.QueryRow(ctx, aboutQuery).Scan(&out.Version, &id, &clock, &out.InRecovery); err != nil {
		return doctor.SQL{Err: sqlReason(err)}
	}
	took := time.Since(begin)
	out.SystemID = uint64(id) // int8 in SQL, unsigned in pg_control
	out.Offset, out.Exact = time.UnixMicro(int64(clock*1e6)).Sub(begin.Add(took/2)), took/2+time.Millisecond
	rows, err := conn.Query(ctx, settingsQuery)
	if err != nil {
		return doctor.SQL{Err: sqlReason(err)}
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var s doctor.Setting
		if err := rows.Scan(&name, &s.Value, &s.Pending, &s.File); err != nil {
			return doctor.SQL{Err: sqlReason(err)}
		}
		out.Settings[name] = s
	}
	if rows.Err() != nil {
		return doctor.SQL{Err: sqlReason(rows.Err())}
	}
	return out
}

// archives begins to ask each of them.
func (g *gatherer) archives(ctx context.Context, tasks *sync.WaitGroup) {
	all := g.cfg.Archives
	if all == nil && g.cfg.Archive.URL != "" {
		all = []ArchiveConfig{g.cfg.Archive}
		all[0].Required = true
	}
	g.facts.Archives = make([]doctor.Archive, len(all))
	id := g.facts.DCS.SystemID
	if id == 0 && g.facts.Local != nil {
		id = g.facts.Local.SystemID
	}
	for i, one := range all {
		tasks.Go(func() { g.facts.Archives[i] = examineArchive(ctx, g.cfg.ofArchive(one), one, id) })
	}
}
