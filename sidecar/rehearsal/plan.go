package rehearsal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Plan is what will be done to which cluster.
type Plan struct {
	r       *Rehearsal
	archive string
	facts   facts
	lead    member
	members []member
	server  server
	schema  string
	bin     map[string]string // the programs of a restore
}

// maxSocketPath is sun_path without its last byte, 0 (unix(7)).
const maxSocketPath = 107

// Plan looks at the cluster, and changes nothing. *Refused says that it is not fit; any other error that nobody could tell.
func (r *Rehearsal) Plan(ctx context.Context) (*Plan, error) {
	f, members, err := r.gather(ctx)
	if err != nil {
		return nil, err
	}
	if why := refuse(f); len(why) > 0 {
		return nil, &Refused{why}
	}
	p := &Plan{r: r, archive: r.o.Archive.String(), facts: f, members: members, schema: newSchema(time.Now(), rand.Text())}
	lead, _ := f.cluster.Leader()
	for _, m := range members {
		if m.name == lead.Name {
			p.lead = m
		}
	}
	conn, err := r.connect(ctx, p.lead.host, p.lead.port)
	if err != nil {
		return nil, fmt.Errorf("connect to the primary %s: %w", p.lead.name, inOneLine(err))
	}
	defer closeConn(conn)
	if p.server, err = ask(ctx, conn); err != nil {
		return nil, err
	}
	why := p.server.lacks(r.o.Restore != nil)
	if r.o.Restore != nil {
		p.bin, err = r.o.Restore.programs(ctx, p.server.version/10000)
		if err != nil {
			why = append(why, err.Error())
		}
		why = append(why, r.o.Restore.room(p.server)...)
	}
	if len(why) > 0 {
		return nil, &Refused{why}
	}
	return p, nil
}

// programs finds PostgreSQL's of the same major version as the cluster.
func (o *RestoreOptions) programs(ctx context.Context, major int) (map[string]string, error) {
	found := map[string]string{}
	for _, name := range []string{"pg_basebackup", "postgres"} {
		var path string
		for _, dir := range []string{o.BinDir, fmt.Sprintf("/usr/lib/postgresql/%d/bin", major), fmt.Sprintf("/usr/pgsql-%d/bin", major)} {
			if p, err := exec.LookPath(filepath.Join(dir, name)); dir != "" && err == nil && path == "" {
				path = p
			}
		}
		if p, err := exec.LookPath(name); path == "" && err == nil {
			path = p
		}
		if path == "" {
			return nil, fmt.Errorf("--restore needs %s of PostgreSQL %d, which is not here: run it on a node of the cluster, or put it into the PATH", name, major)
		}
		found[name] = path
	}
	out, err := exec.CommandContext(ctx, found["postgres"], "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("--restore: %s --version: %w", found["postgres"], err)
	}
	if words := strings.Fields(string(out)); len(words) < 3 || strings.FieldsFunc(words[2], func(r rune) bool { return r < '0' || r > '9' })[0] != fmt.Sprint(major) {
		return nil, fmt.Errorf("--restore needs PostgreSQL %d, and %s is %q", major, found["postgres"], strings.TrimSpace(string(out)))
	}
	return found, nil
}

// room says why the scratch folder will not do.
func (o *RestoreOptions) room(s server) (why []string) {
	if os.Geteuid() == 0 {
		why = append(why, "--restore starts a PostgreSQL, which root may not: run it as the user that runs PostgreSQL (sudo -u postgres walbaton drill ...)")
	}
	if len(filepath.Join(o.Scratch, "walbaton-drill-0123456789", ".s.PGSQL.5432")) > maxSocketPath {
		why = append(why, fmt.Sprintf("the path of %s is too long for a socket in it: give a shorter one to --scratch", o.Scratch))
	}
	free, err := diskFree(o.Scratch)
	switch {
	case err != nil:
		why = append(why, fmt.Sprintf("the folder %s cannot be used (%v): give another one to --scratch", o.Scratch, err))
	case s.size > 0 && free < uint64(s.size)+uint64(s.size)/10+1<<30:
		why = append(why, fmt.Sprintf("%s has room for %s, and the cluster is %s large: give another folder to --scratch", o.Scratch, size(int64(free)), size(s.size)))
	}
	return why
}

func diskFree(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// size writes bytes as people read them, in PostgreSQL's units.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	return fmt.Sprintf("%.4g %s", x, units[i])
}

// String says exactly what will be done.
func (p *Plan) String() string {
	var b strings.Builder
	o := p.r.o
	fmt.Fprintf(&b, "cluster   %s, system identifier %d, timeline %d\n", p.facts.scope, p.facts.systemID, p.facts.node.Timeline)
	fmt.Fprintf(&b, "primary   %s (%s:%d), replicas %s\n", p.lead.name, p.lead.host, p.lead.port, strings.Join(p.others(), ", "))
	fmt.Fprintf(&b, "archive   %s\n", p.archive)
	if h := p.facts.sidecar.Baton.Holder; h != "" {
		fmt.Fprintf(&b, "baton     %s holds it\n", h)
	}
	for _, s := range p.server.left {
		fmt.Fprintf(&b, "! the schema %s in the database %s is of a drill that was killed: drop schema %s cascade\n", s, p.server.database, s)
	}
	b.WriteString("\nThis drill will:\n")
	n := 0
	step := func(format string, args ...any) {
		n++
		fmt.Fprintf(&b, "  %d. %s\n", n, fmt.Sprintf(format, args...))
	}
	if o.Restore != nil {
		about := ""
		if p.server.size > 0 {
			about = ", about " + size(p.server.size)
		}
		step("copy the whole cluster from %s with pg_basebackup, into a new folder below %s%s", p.lead.name, o.Restore.Scratch, about)
	}
	step("make the schema %s in the database %s, with one small table", p.schema, p.server.database)
	step("write %d rows a second into it, and end a segment (%s) every %v with pg_switch_wal", o.Rate, size(p.server.segment), o.Every)
	to := "a replica of its choice"
	if o.Candidate != "" {
		to = o.Candidate
	}
	if o.Command != "" {
		step("after %v, run this: %s\n     and wait up to %v until a primary takes writes", o.Write, o.Command, o.Wait)
	} else {
		step("after %v, ask Patroni to make %s the primary in place of %s (POST %s/switchover)", o.Write, to, p.lead.name, p.lead.rest)
	}
	step("go on writing for %v, until the new timeline is in the archive and the members follow", o.Write)
	if o.Rounds > 1 {
		step("do the last three steps %d times in all", o.Rounds)
	}
	if o.Restore != nil {
		step("make a restore point, recover the copy from the archive up to it, and compare every row")
	}
	step("drop the schema%s", map[bool]string{true: ", and remove the folder", false: ""}[o.Restore != nil])
	b.WriteString("\nEvery connection to the primary ends, and nobody can write until another one takes over: mostly some seconds.\n")
	return b.String()
}

// others are the members but the primary.
func (p *Plan) others() (names []string) {
	for _, m := range p.members {
		if m.name != p.lead.name {
			names = append(names, m.name)
		}
	}
	return names
}

// findPrimary asks every member, and gives the one that is a running primary; of two the one on the newer timeline.
func (r *Rehearsal) findPrimary(ctx context.Context, members []member) (member, error) {
	var best member
	var on uint32
	for _, m := range members {
		one, cancel := context.WithTimeout(ctx, sampleTime)
		n, err := r.o.API.Node(one, m.rest)
		cancel()
		if err == nil && n.Running() && n.Role == "primary" && n.Timeline > on {
			best, on = m, n.Timeline
		}
	}
	if best.name == "" {
		return best, errors.Join(ctx.Err(), errNoPrimary)
	}
	return best, nil
}
