package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader/patroni"
)

// As PostgreSQL 15 writes it: pid, folder, start, port, socket folder, address, shared memory, status.
const pidFile = "4711\n/data\n1700000000\n5433\n/tmp/sock\n*\n   123   456\nready   \n"

func TestParsePostmaster(t *testing.T) {
	got := parsePostmaster(pidFile)
	want := postmaster{pid: 4711, started: time.Unix(1700000000, 0), port: 5433, socket: "/tmp/sock", address: "*", status: "ready"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range pidFile { // it may be read while it is written
		parsePostmaster(pidFile[:i])
	}
	if got := parsePostmaster("-42\n/data\n1700000000\n"); got.pid != -42 {
		t.Errorf("single-user mode: got pid %d", got.pid)
	}
}

func TestPostmasterAlive(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	const nobody = 1 << 30 // above the largest process number
	for name, tc := range map[string]struct {
		p    postmaster
		dir  string
		want bool
	}{
		"works in its folder":                 {postmaster{pid: os.Getpid()}, cwd, true},
		"in single-user mode":                 {postmaster{pid: -os.Getpid()}, cwd, true},
		"a number in use again":               {postmaster{pid: os.Getpid()}, t.TempDir(), false},
		"gone":                                {postmaster{pid: nobody}, cwd, false},
		"in another container":                {postmaster{pid: nobody, port: port, address: "*"}, cwd, true},
		"in another container, same number":   {postmaster{pid: os.Getpid(), port: port, address: "127.0.0.1"}, t.TempDir(), true},
		"the file is just being written":      {postmaster{}, cwd, false},
		"the socket of another machine's run": {postmaster{pid: nobody, port: port, socket: "/nowhere", address: ""}, cwd, true},
	} {
		if got := tc.p.alive(tc.dir); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestServerFromFiles(t *testing.T) {
	control := wal.Control{SystemID: 7, SegmentSize: 16 << 20, RedoTimeline: 1, Checkpoint: 100, MinRecovery: 50}
	control.State = wal.DBInProduction
	recovering := control
	recovering.State, recovering.MinRecoveryTimeline, recovering.MinRecovery = wal.DBArchiveRecovery, 2, 200
	base := archiver.Server{SystemID: 7, Major: 15, SegmentSize: 16 << 20, Timeline: 1, Flush: 100, WasPrimary: true}
	with := func(state archiver.ServerState) archiver.Server { s := base; s.State = state; return s }
	ahead := with(archiver.ServerStandby)
	ahead.Timeline, ahead.Flush, ahead.WasPrimary = 2, 200, false
	running := func(status string) serverFiles {
		return serverFiles{major: 15, control: control, running: true, postmaster: postmaster{pid: 1, status: status}}
	}
	onTwo := running("ready")
	onTwo.control = recovering
	cold := running("standby")
	cold.control = recovering
	single := running("")
	single.postmaster.pid = -1
	broken := running("ready")
	broken.err = errors.New("torn")
	for name, tc := range map[string]struct {
		f    serverFiles
		want archiver.Server
	}{
		"primary":            {running("ready"), with(archiver.ServerPrimary)},
		"standby":            {onTwo, ahead},
		"hot_standby is off": {cold, ahead},
		"starting":           {running("starting"), with(archiver.ServerStarting)},
		"written in part":    {running(""), with(archiver.ServerStarting)},
		"stopping":           {running("stopping"), with(archiver.ServerStopping)},
		"single-user":        {single, with(archiver.ServerStarting)},
		"stopped":            {serverFiles{major: 15, control: control}, with(archiver.ServerStopped)},
		"killed":             {serverFiles{major: 15, control: control, postmaster: postmaster{pid: 1, status: "ready"}}, with(archiver.ServerStopped)},
		"no data directory":  {readServerFiles("/nowhere"), archiver.Server{State: archiver.ServerUnknown}},
		"pg_control is torn": {broken, archiver.Server{State: archiver.ServerStarting}},
	} {
		if got := tc.f.server(); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

// A DSN that leads to the primary must not make a primary of this standby.
func TestSameServer(t *testing.T) {
	start := time.Unix(1700000000, 0)
	f := serverFiles{control: wal.Control{SystemID: 7}, postmaster: postmaster{started: start}}
	for _, tc := range []struct {
		id    uint64
		later time.Duration
		ok    bool
	}{
		{7, 0, true}, {7, 200 * time.Millisecond, true}, {7, 10 * time.Second, true},
		{8, 0, false}, {7, 2 * time.Minute, false}, {7, -time.Hour, false},
	} {
		if err := f.same(sqlAnswer{systemID: tc.id, started: start.Add(tc.later)}); (err == nil) != tc.ok {
			t.Errorf("system %d, %v later: %v, want ok %v", tc.id, tc.later, err, tc.ok)
		}
	}
}

// The timeline of a server does not go back while it runs; another server may be on any.
func TestTimelineReached(t *testing.T) {
	start := time.Unix(1700000000, 0)
	runs := serverFiles{running: true, postmaster: postmaster{pid: 7, started: start}}
	again, torn, stopped := runs, runs, runs
	again.postmaster.started = start.Add(time.Minute)
	torn.err = errors.New("torn")
	stopped.running = false
	var r reached
	for i, tt := range []struct {
		name      string
		f         serverFiles
		id        uint64
		sees, got wal.Timeline
	}{
		{"it receives timeline 2", runs, 5, 2, 2},
		{"it receives nothing, and pg_control is behind", runs, 5, 1, 2},
		{"pg_control is torn", torn, 0, 0, 0},
		{"it is whole", runs, 5, 1, 2},
		{"it is promoted", runs, 5, 3, 3},
		{"it stops", stopped, 5, 3, 3},
		{"it is rewound", stopped, 5, 2, 2},
		{"and runs", again, 5, 2, 2},
		{"another cluster's", again, 6, 1, 1},
	} {
		if s := r.by(tt.f, archiver.Server{SystemID: tt.id, Timeline: tt.sees}); s.Timeline != tt.got {
			t.Errorf("%d, %s: timeline %d, want %d", i, tt.name, s.Timeline, tt.got)
		}
	}
}

func TestSQLOverFiles(t *testing.T) {
	files := archiver.Server{State: archiver.ServerStandby, SystemID: 7, Major: 15, SegmentSize: 16 << 20, Timeline: 1, Flush: 100}
	receiver := archiver.Receiver{Streaming: true, Timeline: 2, Host: "10.0.0.1", Port: 5432}
	for name, tc := range map[string]struct {
		a    sqlAnswer
		want archiver.Server
	}{
		"just promoted": {
			sqlAnswer{version: 150020, archiveMode: "always", timeline: 2, flush: 300, receiver: receiver},
			archiver.Server{State: archiver.ServerPrimary, SQL: true, SystemID: 7, Major: 15, Version: 150020, WasPrimary: true, SegmentSize: 16 << 20, Timeline: 2, Flush: 300, ArchiveMode: "always"},
		},
		"streaming the next timeline": {
			sqlAnswer{version: 150020, archiveMode: "on", flush: 300, receiver: receiver},
			archiver.Server{State: archiver.ServerStandby, SQL: true, SystemID: 7, Major: 15, Version: 150020, SegmentSize: 16 << 20, Timeline: 2, Flush: 300, ArchiveMode: "on", Receiver: receiver},
		},
		"no receiver": {
			sqlAnswer{version: 120022, archiveMode: "off", flush: 90},
			archiver.Server{State: archiver.ServerStandby, SQL: true, SystemID: 7, Major: 12, Version: 120022, SegmentSize: 16 << 20, Timeline: 1, Flush: 90, ArchiveMode: "off"},
		},
	} {
		if got := tc.a.server(files); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestDSNs(t *testing.T) {
	dir := t.TempDir()
	r := &sqlReader{patroni: patroni.Config{PostgreSQL: patroni.PostgreSQL{
		Listen: "10.0.0.1:5433", PgPass: "/pgpass", Superuser: patroni.Credentials{Username: "super", Password: `it's a \`},
	}}}
	const rest = ` dbname='postgres' user='super' password='it\'s a \\' passfile='/pgpass'`
	got := r.dsns(postmaster{port: 5433, socket: dir, address: "*"})
	want := []string{
		fmt.Sprintf("host='%s' port='5433'", dir) + rest,
		"host='127.0.0.1' port='5433'" + rest,
		"host='10.0.0.1' port='5433'" + rest,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	r.dsn = "service=x"
	if got := r.dsns(postmaster{}); !reflect.DeepEqual(got, []string{"service=x"}) {
		t.Errorf("a configured DSN: got %v", got)
	}
}
