package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/sidecar/web"
)

// asked is a cluster in order, seen from n2, and what n1, the holder, says.
func asked() (n2 Status, answers map[string]answer) {
	n1 := twoNodes()
	n1.Started = n1.Time.Add(-time.Hour)
	n1.Archive.Windows = []WindowStatus{{FromLSN: "0/1000000", ToLSN: "0/4000000"}}
	n1.Archive.Verify = &VerifyStatus{At: n1.Time.Add(-time.Minute)}
	n1.Rates = &RatesStatus{First: n1.Time, Segments: []uint64{3}, Bytes: []uint64{300}}
	n2 = twoNodes()
	n2.Member, n2.Baton.Since, n2.Started = "n2", time.Time{}, n2.Time.Add(-time.Minute)
	return n2, map[string]answer{"n1": {st: &n1}}
}

// What only the holder knows is on every node's page.
func TestClusterFromAnyNode(t *testing.T) {
	st, answers := asked()
	c := gatherCluster(st, answers)
	if c.Asked != "n2" || c.Status.Member != "n2" || len(c.Status.Archive.Windows) != 1 || c.Status.Baton.Since.IsZero() {
		t.Errorf("got %+v", c.Status)
	}
	if len(c.Members) != 2 || !c.Members[0].Asked || c.Members[0].Rates.Segments[0] != 3 || !c.Members[1].Asked {
		t.Errorf("members: %+v", c.Members)
	}
	if c.Verdict.Level != levelWell || c.Verdict.Headline != "All is well" || len(c.Verdict.Problems) != 0 {
		t.Errorf("verdict: %+v", c.Verdict)
	}
	c = gatherCluster(st, map[string]answer{"n1": {why: "timeout"}})
	if c.Members[0].Asked || c.Members[0].Why != "timeout" || !strings.Contains(c.Window, "n1 knows") {
		t.Errorf("without the holder: %+v, %q", c.Members[0], c.Window)
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name            string
		change          func(st, holder *Status)
		level, headline string
		sentence        string
	}{
		{"hole", func(_, h *Status) {
			h.Archive.Verify.Missing, h.Archive.Verify.Holes, h.Archive.Verify.Problems = 2, 1, 1
			h.Archive.Verify.List = []VerifyProblem{{"", archiver.Problem{Kind: "hole", Name: "000000020000000000000002", Why: "2 segments are missing"}}}
		}, levelWrong, "The archive has a hole: 2 segments are missing", "A recovery that has to cross it stops there"},
		{"store", func(st, h *Status) {
			h.Ready, h.Why, h.Archive.Answers = false, "the archive does not answer: refused", false
			st.Members[0].Misses, st.Members[0].Keeps = 3, 3<<20
		}, levelWrong, "The archive does not answer", "keeps its WAL until it does: 3 segments so far (3.0 MB)."},
		{"dcs", func(st, _ *Status) {
			st.DCS.Answers, st.Ready, st.Why = false, false, "the DCS does not answer: timeout"
			st.Baton.AsOf = st.Time.Add(-time.Minute)
		}, levelWrong, "The DCS does not answer", "ships on"},
		{"dcs for all", func(st, h *Status) {
			st.DCS.Answers, st.Ready, st.Why = false, false, "the DCS does not answer: timeout"
			h.Ready, h.Why = false, "the DCS does not answer: refused"
		}, levelWrong, "The DCS does not answer", "ships on"},
		{"no leader", func(st, _ *Status) { st.Members[0].Leader = false }, levelChanging, "No member is the leader just now", "A role change or a restart is under way"},
		{"promotion", func(st, _ *Status) { st.Members[0].Timeline = 3 }, levelChanging, "n1 opens a new timeline", "A role change or a restart is under way"},
		{"restart", func(st, _ *Status) { st.Members[1].State = "starting" }, levelChanging, "PostgreSQL of n2 does not run (starting)", "is under way"},
		{"nobody", func(st, _ *Status) { st.Baton = BatonStatus{Why: "no store answers"} }, levelWrong, "Nobody holds the baton", "kept until"},
		{"no sidecar", func(st, _ *Status) {
			st.Members = append(st.Members, MemberStatus{Name: "n3", Role: "replica"})
		}, levelWrong, "No sidecar answers beside n3", "not protected"},
		{"full", func(st, _ *Status) { st.Members[1].Full = true }, levelWrong, "A disk is full", "cannot write"},
		{"two primaries", func(st, _ *Status) { st.Members[1].Primary = true }, levelWrong, "Two servers take writes", "not the cluster's"},
		{"other", func(st, _ *Status) { st.Members[1].ArchiveMode = "off" }, levelWrong, "1 thing is not in order", ""},
		{"paused", func(st, _ *Status) { st.DCS.Paused = true }, levelWell, "All is well", "n1 holds the baton and ships. The archive has every segment up to 0/4000000, and nothing waits."},
	} {
		st, answers := asked()
		tc.change(&st, answers["n1"].st)
		v := gatherCluster(st, answers).Verdict
		if v.Level != tc.level || v.Headline != tc.headline || !strings.Contains(v.Sentence, tc.sentence) || len(v.Problems) > 1 || (tc.level == levelWrong) != (len(v.Problems) > 0) {
			t.Errorf("%s: got %+v", tc.name, v)
		}
	}
}

// An alarm of another node's sidecar is on ours, too, and once.
func TestVerdictOfOthers(t *testing.T) {
	st, answers := asked()
	alarm := archiver.Alarm{Row: "6c", Name: "000000020000000000000004", Why: "it differs"}
	answers["n1"].st.Alarms = []archiver.Alarm{alarm}
	v := gatherCluster(st, answers).Verdict
	if len(v.Problems) != 1 || !strings.Contains(v.Problems[0], "says n1: it differs") {
		t.Errorf("got %q", v.Problems)
	}
	st.Alarms = []archiver.Alarm{alarm}
	if v = gatherCluster(st, answers).Verdict; len(v.Problems) != 1 || v.Headline != "1 file needs a person" {
		t.Errorf("both have it: %+v", v)
	}
}

// A sidecar that was started a minute ago shows what an older one saw before.
func TestChangesOfBefore(t *testing.T) {
	st, answers := asked()
	at := func(d time.Duration, text string) ChangeStatus { return ChangeStatus{st.Time.Add(-d), text} }
	answers["n1"].st.Changes = []ChangeStatus{at(time.Hour, "began"), at(10*time.Minute, "n1 became the leader."), at(5*time.Second, "seen by both")}
	st.Changes = []ChangeStatus{at(time.Minute, "began"), at(5*time.Second, "seen by both")}
	var got []string
	for _, c := range gatherCluster(st, answers).Changes {
		got = append(got, c.Text)
	}
	if want := []string{"began", "n1 became the leader.", "seen by both"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestChronicle(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c := newChronicle(now)
	g := glance{leader: "n1", line: 2, holder: "n1", term: 7, why: "it is the leader", open: true, store: true,
		members: map[string]string{"n1": "primary, running", "n2": "replica, running"}, sidecars: map[string]bool{"n1": true, "n2": true}}
	c.look(now, g, 100)
	changed := c.wait()
	c.look(now.Add(time.Second), g, 100)
	select {
	case <-changed:
		t.Error("it changed, and nothing has")
	default:
	}
	next := g
	next.leader, next.holder = "", ""
	c.look(now.Add(2*time.Second), next, 100)
	<-changed
	next.leader, next.line, next.left = "n2", 3, 0x5000000
	c.look(now.Add(3*time.Second), next, 100)
	next.holder, next.term = "n2", 8
	next.members = map[string]string{"n1": "replica, running", "n2": "primary, running"}
	c.look(now.Add(4*time.Second), next, 200)
	next.silent, next.holder = true, ""
	c.look(now.Add(5*time.Second), next, 200)
	next.silent, next.paused, next.holder, next.sidecars = false, true, "n2", map[string]bool{"n2": true}
	c.look(now.Add(6*time.Second), next, 200)
	changes, moved := c.status()
	var got []string
	for _, ch := range changes {
		got = append(got, ch.Text)
	}
	want := []string{
		"This sidecar began to look: n1 was the leader on timeline 2, and n1 held the baton.",
		"n1 is the leader no more, and there is no other one yet.",
		"n1 gave the baton back.",
		"n2 became the leader.",
		"The cluster is on timeline 3, which left timeline 2 at 0/5000000.",
		"n2 took the baton, term 8: it is the leader.",
		"n1 follows as a replica.",
		"The DCS stopped answering.",
		"The DCS answers again.",
		"Patroni was paused: it changes no roles.",
		"n2 took the baton, term 8: it is the leader.",
		"The sidecar of n1 is gone.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !moved.Equal(now.Add(4 * time.Second)) {
		t.Errorf("the frontier moved at %v", moved)
	}
	for i := range 50 {
		next.term = uint64(100 + i)
		c.look(now.Add(time.Minute), next, 200)
	}
	if changes, _ := c.status(); len(changes) != maxChanges {
		t.Errorf("%d changes are remembered, want %d", len(changes), maxChanges)
	}
}

func TestRates(t *testing.T) {
	var r rates
	if r.status() != nil {
		t.Error("nothing was noted, and there are rates")
	}
	at := time.Date(2026, 11, 21, 12, 0, 30, 0, time.UTC)
	one, two := new(int), new(int)
	r.note(at, one, 5, 500)
	r.note(at.Add(20*time.Second), one, 6, 600)
	r.note(at.Add(2*time.Minute), one, 8, 800) // a minute without anything
	r.note(at.Add(2*time.Minute+time.Second), two, 1, 50)
	got := r.status()
	if !got.First.Equal(at.Truncate(time.Minute)) || !slices.Equal(got.Segments, []uint64{6, 0, 3}) || !slices.Equal(got.Bytes, []uint64{600, 0, 250}) {
		t.Errorf("got %+v", got)
	}
	for i := range 100 {
		r.note(at.Add(time.Duration(3+i)*time.Minute), two, uint64(2+i), 50)
	}
	if got = r.status(); len(got.Segments) != rateMinutes || !got.First.Equal(at.Truncate(time.Minute).Add(43*time.Minute)) || got.Segments[59] != 1 {
		t.Errorf("after 100 minutes: %d from %v", len(got.Segments), got.First)
	}
	r.note(at.Add(24*time.Hour), two, 200, 50)
	if got = r.status(); len(got.Segments) != 1 || got.Segments[0] != 99 {
		t.Errorf("after a day asleep: %+v", got)
	}
}

// Without a look at the archive the tree is the line; with one it goes on to where the line is now.
func TestTimelinesStatus(t *testing.T) {
	line := wal.History{Timeline: 3, Forks: []wal.Fork{{Timeline: 1, End: 0x2000000}, {Timeline: 2, End: 0x5000000}}}
	got := timelinesOf(nil, line, 0x1000000, 0x7000000)
	if got == nil || len(got.Rows) != 3 || got.Rows[0].Begin != "0/1000000" || got.Rows[1].Fork != "0/2000000" || got.Rows[2].End != "0/7000000" || !got.Rows[2].Newest || got.Rows[1].Newest {
		t.Errorf("the line alone: %+v", got)
	}
	rep := &archiver.Audit{SegmentSize: 1 << 20, Line: []wal.Timeline{1, 2}, Timelines: []archiver.AuditTimeline{
		{Timeline: 1, OnLine: true, Begin: "0/1000000", End: "0/2000000", Segments: 16}, {Timeline: 2, Parent: 1, Fork: "0/2000000", OnLine: true, Begin: "0/2000000", End: "0/4000000", Segments: 32},
		{Timeline: 4, Parent: 1, Fork: "0/1800000", Begin: "0/1800000", End: "0/1900000", Segments: 1},
	}, Problems: []archiver.Problem{{Kind: archiver.ProblemHole, Timeline: 2, From: "000000020000000000000030", To: "000000020000000000000031", Count: 2}}}
	got = timelinesOf(rep, line, 0x1000000, 0x7000000)
	var order []uint32
	for _, r := range got.Rows {
		order = append(order, r.Timeline)
	}
	if !slices.Equal(order, []uint32{1, 2, 3, 4}) || len(got.Rows[1].Holes) != 1 || got.Rows[1].Holes[0].From != "0/3000000" || got.Rows[3].OnLine || !got.Rows[2].Newest {
		t.Errorf("got %+v", got.Rows)
	}
	if timelinesOf(nil, wal.History{}, 0, 0) != nil {
		t.Error("nothing is known, and there is a tree")
	}
	long := wal.History{Timeline: 100}
	for i := range 99 {
		long.Forks = append(long.Forks, wal.Fork{Timeline: wal.Timeline(i + 1), End: wal.LSN(0x1000000 * (i + 2))})
	}
	if got = timelinesOf(nil, long, 0x1000000, 0x80000000); len(got.Rows) != maxTimelines || got.Older != 76 || got.Rows[0].Timeline != 77 {
		t.Errorf("a long line: %d rows from %d, %d older", len(got.Rows), got.Rows[0].Timeline, got.Older)
	}
}

// signed writes a certificate with these addresses; without a parent it signs itself.
func signed(t *testing.T, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey, ips ...net.IP) (cert, key string, leaf *x509.Certificate, private *ecdsa.PrivateKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: ips, IsCA: parent == nil, BasicConstraintsValid: true}
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	secret, err2 := x509.MarshalPKCS8PrivateKey(private)
	leaf, err3 := x509.ParseCertificate(der)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert = writeFile(t, dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = writeFile(t, dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return cert, key, leaf, private
}

// With a password and TLS, sidecars of one configuration still ask each other, and so does `walbaton status`; others do not get in, and nobody is taken for a sidecar
// who cannot show the right certificate.
func TestAskWithPasswordAndTLS(t *testing.T) {
	caFile, _, ca, caKey := signed(t, "ca", nil, nil)
	cert, key, _, _ := signed(t, "node", ca, caKey, net.IPv4(127, 0, 0, 1))
	odd, oddKey, _, _ := signed(t, "odd", ca, caKey, net.IPv4(10, 9, 9, 9)) // another node's
	own, ownKey, _, _ := signed(t, "own", nil, nil)                         // signs itself, and has no address
	serve := func(w WebConfig) string {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, err := web.New(l, web.Options{Username: w.Username, Password: w.Password, Cert: w.Cert, Key: w.Key}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Serve(ctx, web.Sources{Gatherer: prometheus.NewRegistry(), Status: func() any { return twoNodes() }})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return s.Address()
	}
	shared := WebConfig{Username: "dba", Password: "secret", Cert: cert, Key: key, CA: caFile}
	for _, tc := range []struct {
		name  string
		serve WebConfig
		ask   WebConfig
		want  string // "" is an answer
	}{
		{"the same", shared, shared, ""},
		{"only the CA", shared, WebConfig{Username: "dba", Password: "secret", CA: caFile}, ""},
		{"no password", shared, WebConfig{CA: caFile}, errNoPassword.Error()},
		{"another password", shared, WebConfig{Username: "dba", Password: "Secret", CA: caFile}, errNoPassword.Error()},
		{"no CA", shared, WebConfig{Username: "dba", Password: "secret", Cert: own, Key: ownKey}, "certificate signed by unknown authority"},
		{"not the address in it", WebConfig{Cert: odd, Key: oddKey}, WebConfig{CA: caFile}, "certificate is valid for 10.9.9.9, not 127.0.0.1"},
		{"our very certificate", WebConfig{Cert: own, Key: ownKey}, WebConfig{Cert: own, Key: ownKey}, ""},
		{"HTTP", shared, WebConfig{Username: "dba", Password: "secret"}, "400 Bad Request"},
		{"password alone", WebConfig{Username: "dba", Password: "secret"}, WebConfig{Username: "dba", Password: "secret"}, ""},
	} {
		at := serve(tc.serve)
		by, err := tc.ask.asker()
		if err != nil {
			t.Fatal(err)
		}
		st, _, err := by.status(t.Context(), at)
		if tc.want == "" && (err != nil || st.Member != "n1") || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, %v, want %q", tc.name, st.Member, err, tc.want)
		}
		m := MemberStatus{Name: "n1", Address: at}
		if _, err := m.ask(t.Context(), by, "shop"); (err == nil) != (tc.want == "") {
			t.Errorf("%s, as a member: got %v", tc.name, err)
		}
		by.http.CloseIdleConnections()
	}
	at := serve(shared)
	file := writeFile(t, filepath.Dir(cert), "walbaton.yml", "web: {username: dba, password: secret, ca: "+caFile+"}\n")
	if code, out, errs := run(t, "status", "--config", file, "--address", at); code != exitOK || !strings.Contains(out, "n1 holds it") {
		t.Errorf("status: exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs := run(t, "status", "--address", at); code != exitFailed || !strings.Contains(errs, "--address https://host:port") {
		t.Errorf("status by HTTP: exit %d\n%s", code, errs)
	}
	if code, _, errs := run(t, "status", "--address", "https://"+at, "--web-ca", caFile); code != exitFailed || !strings.Contains(errs, "WALBATON_WEB_PASSWORD") {
		t.Errorf("status without the password: exit %d\n%s", code, errs)
	}
}

// A port that is taken, and a certificate that cannot be read, are known before anything else starts.
func TestListenWeb(t *testing.T) {
	s, err := listenWeb(t.Context(), Config{Listen: "127.0.0.1:0"}, discard())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := listenWeb(t.Context(), Config{Listen: s.Address()}, discard()); err == nil || !strings.Contains(explainError(err), "--listen") {
		t.Errorf("a taken port: got %v", err)
	}
	_, err = listenWeb(t.Context(), Config{Listen: "127.0.0.1:0", Web: WebConfig{Cert: "/nowhere/crt", Key: "/nowhere/key"}}, discard())
	if err == nil || !strings.Contains(explainError(err), "web.cert takes") {
		t.Errorf("no certificate: got %v", err)
	}
}

// The states of live clusters that the page's pictures are made of are judged as the code judges now; -update writes that.
func TestVerdictOfRecordedStates(t *testing.T) {
	files, err := filepath.Glob("web/testdata/cluster-*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("there are %d states: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var c ClusterStatus
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		recorded, window := c.Verdict, c.Window
		c.Verdict, c.Window = verdictOf(c.Status, c.Status, nil), c.Status.window()
		if *update {
			now, err := json.MarshalIndent(c, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Dir(f), filepath.Base(f), string(now)+"\n")
		} else if !reflect.DeepEqual(c.Verdict, recorded) || c.Window != window {
			t.Errorf("%s is judged otherwise now: look at it, and write it with -update. Got %+v, %q", f, c.Verdict, c.Window)
		}
	}
}

// Another cluster's sidecar at the address of a member is none of ours.
func TestAskRefusesStrangers(t *testing.T) {
	m := MemberStatus{Name: "n1", Address: "nowhere"}
	if _, err := m.ask(t.Context(), asker{}, "shop"); err == nil || !strings.Contains(err.Error(), "address") {
		t.Errorf("no port: %v", err)
	}
	m.Address = ":9847"
	if _, err := m.ask(t.Context(), asker{}, "shop"); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("no host: %v", err)
	}
}

// A sidecar counts what it ships, remembers what changed, and shows the tree: of the line at first, and of the archive when it has looked.
func TestStatusOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newTestCluster(t), newTestWriter(3)
		c.patroni("n1", 1, "n1")
		n1 := c.newSidecar("n1")
		n1.primary(w)
		n1.start()
		last := w.Full()[2].String()
		n1.until(15*time.Second, "all segments are in the archive", func() bool { return c.archived(last) && n1.holds() })
		time.Sleep(2 * time.Second)
		st := n1.Status()
		shipped := uint64(0)
		for _, n := range st.Rates.Segments {
			shipped += n
		}
		if shipped != 3 || st.Rates.Bytes[len(st.Rates.Bytes)-1] == 0 {
			t.Errorf("rates: %+v, want 3 segments", st.Rates)
		}
		if st.Archive.Moved.IsZero() || st.Archive.Timelines == nil || !st.Archive.Timelines.At.IsZero() || st.Archive.Timelines.Rows[0].End != st.Archive.Frontier {
			t.Errorf("archive: %+v, timelines %+v", st.Archive, st.Archive.Timelines)
		}
		changed := n1.chronicle.wait()
		c.scope.Delete("leader")
		n1.until(15*time.Second, "it is told that there is no leader", func() bool {
			all := n1.Status().Changes
			return strings.HasPrefix(all[len(all)-1].Text, "n1 is the leader no more")
		})
		<-changed
		page := n1.clusterStatus(t.Context())
		if page.Verdict.Headline != "No member is the leader just now" || page.Verdict.Level != levelChanging || len(page.Changes) < 2 {
			t.Errorf("verdict %+v, changes %+v", page.Verdict, page.Changes)
		}
		c.patroni("n1", 1, "n1")
		n1.until(time.Minute, "the archive was looked at", func() bool { return !n1.Status().Archive.Timelines.At.IsZero() })
		if rows := n1.Status().Archive.Timelines.Rows; len(rows) != 1 || !rows[0].Newest || !slices.Equal(rows[0].Notes, []string{"3 segments"}) {
			t.Errorf("timelines: %+v", rows)
		}
		n1.stop()
	})
}
