package archiver

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/mem"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// testIdentity opens what the nodes of the tests below TestEncrypted encrypt.
var testIdentity = sync.OnceValue(func() *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return id
})

// encryption says what the nodes of a test encrypt to, and which identities they have. The test's name decides, so that any test of this
// package can be run with encryption.
func encryption(t testing.TB) (to []seal.Recipient, keys []seal.Identity) {
	switch {
	case strings.Contains(t.Name(), "/keys/"):
		return []seal.Recipient{testIdentity().Recipient()}, []seal.Identity{testIdentity()}
	case strings.Contains(t.Name(), "/public_keys_only/"):
		return []seal.Recipient{testIdentity().Recipient()}, nil
	}
	return nil, nil
}

// TestEncrypted runs much of this package's tests with encryption: on nodes that have the identity, and on nodes that have only the public
// key, as they are meant to be. What these cannot find out is in the tests below.
func TestEncrypted(t *testing.T) {
	tests := map[string]func(*testing.T){
		"AcceptDisputed":                     TestAcceptDisputed,
		"AcceptFromKeepDir":                  TestAcceptFromKeepDir,
		"ArchivesDiffer":                     TestArchivesDiffer,
		"BackupLabelBeingWritten":            TestBackupLabelBeingWritten,
		"BranchGoesToOrphans":                TestBranchGoesToOrphans,
		"ConfirmingIsOneRangedGet":           TestConfirmingIsOneRangedGet,
		"DamagedCopyIsNotShipped":            TestDamagedCopyIsNotShipped,
		"DamagedObjectIsNoSilence":           TestDamagedObjectIsNoSilence,
		"DamagedObjectIsNotCopied":           TestDamagedObjectIsNotCopied,
		"DecidedOrphansAreNotAdopted":        TestDecidedOrphansAreNotAdopted,
		"DifferenceSeenByTheShipper":         TestDifferenceSeenByTheShipper,
		"ExplainChangesNothing":              TestExplainChangesNothing,
		"HealsAfterFailover":                 TestHealsAfterFailover,
		"HistoryGoesFirst":                   TestHistoryGoesFirst,
		"HistoryOfWhoLedForAMoment":          TestHistoryOfWhoLedForAMoment,
		"HolderAsksForWhatItLacks":           TestHolderAsksForWhatItLacks,
		"JoinInParallel":                     TestJoinInParallel,
		"KeptCopyBesideAnother":              TestKeptCopyBesideAnother,
		"KeptFilesNeedAWitness":              TestKeptFilesNeedAWitness,
		"KeptOfAnUnopenedTimeline":           TestKeptOfAnUnopenedTimeline,
		"KeptOfTheSecondPrimary":             TestKeptOfTheSecondPrimary,
		"MarkPassesWhatTheHolderNeverHad":    TestMarkPassesWhatTheHolderNeverHad,
		"NameIsNotContent":                   TestNameIsNotContent,
		"NothingBehindAnotherServersSegment": TestNothingBehindAnotherServersSegment,
		"OnePassOverTheFile":                 TestOnePassOverTheFile,
		"OrphansOfAnIdleTwin":                TestOrphansOfAnIdleTwin,
		"OrphansOfAnotherIncarnation":        TestOrphansOfAnotherIncarnation,
		"RecycledParent":                     TestRecycledParent,
		"RecycledWhileRead":                  TestRecycledWhileRead,
		"ResolveHistory":                     TestResolveHistory,
		"ResolveTwoWhole":                    TestResolveTwoWhole,
		"SecondIncarnation":                  TestSecondIncarnation,
		"SecondPrimary":                      TestSecondPrimary,
		"SecondPrimaryThatStopped":           TestSecondPrimaryThatStopped,
		"SeveralArchivesGetOneSealedObject":  TestSeveralArchivesGetOneSealedObject,
		"ShippingIsOnePut":                   TestShippingIsOnePut,
		"SilentDCSFillsNoDisk":               TestSilentDCSFillsNoDisk,
		"StandbyOfTheSecondPrimary":          TestStandbyOfTheSecondPrimary,
		"StatusFilesOfAStandby":              TestStatusFilesOfAStandby,
		"StoppedInsideASegment":              TestStoppedInsideASegment,
		"TendSeesNewFiles":                   TestTendSeesNewFiles,
		"UploadsFinishInTheGrace":            TestUploadsFinishInTheGrace,
		"WitnessOutlivesARestart":            TestWitnessOutlivesARestart,
	}
	withKeys := map[string]func(*testing.T){
		"DisputeEnds":                   TestDisputeEnds,
		"JoinWithArchived":              TestJoinWithArchived,
		"MisfitOfAnotherServer":         TestMisfitOfAnotherServer,
		"OrphanBesideADamagedObject":    TestOrphanBesideADamagedObject,
		"OrphanGetsANeighbour":          TestOrphanGetsANeighbour,
		"OrphanWhileTheStoreFails":      TestOrphanWhileTheStoreFails,
		"OrphansOpenTheTimelineBetween": TestOrphansOpenTheTimelineBetween,
		"RefusedOrders":                 TestRefusedOrders,
		"ResolveTheirsDamaged":          TestResolveTheirsDamaged,
		"TwoContentsOfOneName":          TestTwoContentsOfOneName,
	}
	run := func(tests map[string]func(*testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(tests)) {
				t.Run(name, tests[name])
			}
		}
	}
	t.Run("public keys only", run(tests))
	if !testing.Short() {
		maps.Copy(withKeys, tests)
	}
	t.Run("keys", run(withKeys))
}

// withPublicKeys runs a test on nodes that have only the public key.
func withPublicKeys(t *testing.T, name string, test func(*testing.T)) {
	t.Run("public keys only", func(t *testing.T) { t.Run(name, test) })
}

// TestEncryptedKinds: what holds data is encrypted, and what every node has to read is not.
func TestEncryptedKinds(t *testing.T) { withPublicKeys(t, "x", testEncryptedKinds) }

func testEncryptedKinds(t *testing.T) {
	w := newWriter()
	w.Fill(2)
	n := newTestNode(t, mem.New("x"), "n1", w)
	full := w.Full()
	segment := wal.SegmentName(full[0])
	for name, tt := range map[wal.Name]struct {
		content    []byte
		encryption string
	}{
		segment: {w.Segment(full[0]), "age"},
		{Kind: wal.KindPartial, Segment: full[1]}:                {w.Segment(full[1]), "age"},
		{Kind: wal.KindBackup, Segment: full[0], Offset: 0x1234}: {[]byte("START WAL LOCATION: 0/1001234\n"), ""},
		wal.HistoryName(2): {[]byte("1\t0/200000\tno recovery target specified\n"), ""},
	} {
		n.write(name.String(), tt.content, ".ready")
		if err := n.orphan(t.Context(), n.local, name); err != nil {
			t.Fatal(err)
		}
		key := n.Archive().OrphanKey("n1", name, seal.DigestOf(tt.content))
		if h, err := n.Archive().Header(t.Context(), key); err != nil || h.Encryption != tt.encryption {
			t.Errorf("%v: got encryption %q, %v", name, h.Encryption, err)
		}
	}
	for _, b := range n.orphans("n1") {
		if len(b) == 0 {
			t.Error("an object cannot be opened with the identity")
		}
	}
	if _, _, err := n.Archive().Open(t.Context(), n.Archive().OrphanKey("n1", segment, seal.DigestOf(w.Segment(full[0])))); !errors.Is(err, seal.ErrNoIdentity) {
		t.Errorf("the node opens its own segment: got %v, want ErrNoIdentity", err)
	}
}

// TestSealedContents is TestTwoContentsOfOneName for nodes that cannot open the archive's copy.
func TestSealedContents(t *testing.T) { withPublicKeys(t, "x", testSealedContents) }

func testSealedContents(t *testing.T) {
	w := newWriter()
	w.Fill(3)
	other := w.Clone(1)
	other.Fill(2)
	w.Fill(2)
	g := w.Full()[3]
	name := wal.SegmentName(g)
	whole, flipped, stranger := w.Segment(g), waltest.Flip(w.Segment(g), 300_000), other.Segment(g)
	cut := func(object []byte) []byte { return object[:len(object)/2] }
	for _, tt := range []struct {
		name         string
		ours, theirs []byte
		spoil        func([]byte) []byte // of their object
		accepted     bool                // theirs, by an administrator
		row          string
		code         int
	}{
		{"ours is damaged", flipped, whole, nil, false, "6a", 0},
		{"ours is nothing of it", make([]byte, 1<<20), whole, nil, false, "6a", 0},
		{"both are whole", whole, stranger, nil, false, "6c", 1},
		{"theirs is half an object", whole, stranger, cut, false, "6b", 1},
		{"ours is damaged, theirs half an object", flipped, whole, cut, false, "9", 1},
		{"theirs was accepted although it is damaged", whole, flipped, nil, true, "6b", 1},
		{"the same, and ours is damaged", waltest.Flip(w.Segment(g), 700_000), flipped, nil, true, "9", 1},
		{"ours may be a part of theirs", waltest.Zero(w.Segment(g), 500_000), whole, nil, false, "8", 1},
		{"ours may be a part of what is half an object", waltest.Zero(w.Segment(g), 500_000), whole, cut, false, "8", 1},
	} {
		s := mem.New("x")
		n := newTestNode(t, s, "n1", w)
		n.o.Limits.PushWait = 10 * time.Millisecond
		n.write(g.String(), tt.ours, ".ready")
		n.sees(func(_ *Cluster, s *Server) { s.Flush = w.Pos() })
		n.put(name, tt.theirs)
		if tt.spoil != nil {
			spoilObject(t, s, n.Archive().Key(name), tt.spoil)
		}
		if err := errors.Join(n.Rescan(), n.List(t.Context()), n.ReadDecisions(t.Context())); err != nil {
			t.Fatal(err)
		}
		if tt.accepted {
			n.decisions.set([]Resolution{{Name: name.String(), Digest: seal.DigestOf(tt.theirs), Decision: Accept}}, time.Now())
		}
		r := n.Push(t.Context(), name)
		if r.Code != tt.code || r.Row != tt.row {
			t.Errorf("%s: got %+v, want %d by row %s", tt.name, r, tt.code, tt.row)
		}
		if tt.row == "8" && tt.spoil == nil && !strings.Contains(r.Why, "encrypted") {
			t.Errorf("%s: the answer does not say why nobody can tell: %s", tt.name, r.Why)
		}
		if ok, why := n.StoreAnswers(); !ok {
			t.Errorf("%s: the store counts as silent: %s", tt.name, why)
		}
	}
}

// TestSealedDispute: two segments here do not fit, and the archive has another one of the first. Without its bytes nobody here can tell which is
// right: the second waits, and is shipped by the node that has the archive's.
func TestSealedDispute(t *testing.T) { withPublicKeys(t, "x", testSealedDispute) }

func testSealedDispute(t *testing.T) {
	w, before, after := crossing(200)
	s := mem.New("x")
	n1, n2 := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	n1.copyFrom(w, ".ready")
	n1.list()
	n1.ships("opens", w.Full()[0], w.Segment(w.Full()[0]))
	n2.copyFrom(w, ".ready")
	n2.write(before.String(), waltest.Flip(w.Segment(before), 1<<20-100), "")
	n2.list()
	n2.refuses("disputed", after)
	n2.refuses("disputed", before)
	n1.ships("the other node's", before, w.Segment(before))
	n2.list()
	if err := n2.Ship(t.Context(), wal.SegmentName(after)); !errors.Is(err, errBadCopy) || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("ship beside a segment that differs from the archive's: got %v", err)
	}
	n1.ships("and the one behind it", after, w.Segment(after))
	n2.list()
	n2.wantPush(wal.SegmentName(after), 0, "2")
}

// TestSealedOrphanWaits: an orphan that is on the line again stays where it is, and that is no failure of the archive. With an identity the next
// term adopts it.
func TestSealedOrphanWaits(t *testing.T) { withPublicKeys(t, "x", testSealedOrphanWaits) }

func testSealedOrphanWaits(t *testing.T) {
	w := newWriter()
	w.Fill(5)
	s := mem.New("x")
	full := w.Full()
	n, other := newTestNode(t, s, "n1", w), newTestNode(t, s, "n2", w)
	other.copyFrom(w, ".ready")
	if err := other.orphan(t.Context(), other.local, wal.SegmentName(full[1])); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		n.write(full[i].String(), w.Segment(full[i]), ".ready")
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	n.shipAll(1)
	n.BeginTerm(t.Context(), 2, Set{})
	for range 2 {
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := stored(t, n.Archive())[full[1].String()]; ok {
		t.Error("adopted without a look into it")
	}
	if ok, why := n.StoreAnswers(); !ok {
		t.Errorf("the store counts as silent: %s", why)
	}
	n.archive.keys = []seal.Identity{testIdentity()}
	n.BeginTerm(t.Context(), 3, Set{})
	if err := n.AdoptOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, n.Archive())[full[1].String()]; !bytes.Equal(got, w.Segment(full[1])) {
		t.Error("the orphan was not adopted with an identity")
	}
	if h, err := n.Archive().Header(t.Context(), n.Archive().Key(wal.SegmentName(full[1]))); err != nil || h.Encryption != "age" {
		t.Errorf("what was adopted is not encrypted: %+v, %v", h, err)
	}
}

// TestOwnSealedOrphan: a node that put an orphan itself knows what is in it, and adopts the object as it is: whole and the line's, else not.
func TestOwnSealedOrphan(t *testing.T) { withPublicKeys(t, "x", testOwnSealedOrphan) }

func testOwnSealedOrphan(t *testing.T) {
	for what, tt := range map[string]struct {
		spoil   bool
		other   bool // the orphan is another server's segment
		adopted bool
	}{
		"whole":                  {false, false, true},
		"half an object":         {true, false, false},
		"it fits nothing beside": {false, true, false},
	} {
		w := newWriter()
		w.Fill(1)
		stranger := w.Clone(1)
		w.Fill(4)
		stranger.Fill(4)
		s := mem.New("x")
		full := w.Full()
		n := newTestNode(t, s, "n1", w)
		name, content := wal.SegmentName(full[2]), w.Segment(full[2])
		if tt.other {
			content = stranger.Segment(full[2])
		}
		n.write(name.String(), content, ".ready")
		if err := n.orphan(t.Context(), n.local, name); err != nil {
			t.Fatal(err)
		}
		key := n.Archive().OrphanKey("n1", name, seal.DigestOf(content))
		orphan, err := n.Archive().read(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if tt.spoil {
			spoilObject(t, s, key, func(b []byte) []byte { return b[:len(b)/2] })
		}
		if err := os.Remove(filepath.Join(n.dir, name.String())); err != nil { // PostgreSQL was told 0
			t.Fatal(err)
		}
		for _, i := range []int{0, 1, 3} {
			n.write(full[i].String(), w.Segment(full[i]), ".ready")
		}
		if err := n.Rescan(); err != nil {
			t.Fatal(err)
		}
		n.shipAll(1)
		n.BeginTerm(t.Context(), 2, Set{})
		if err := n.AdoptOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := n.Archive().read(t.Context(), n.Archive().Key(name))
		if (err == nil) != tt.adopted || tt.adopted && !bytes.Equal(got, orphan) {
			t.Errorf("%s: the archive has %d bytes under its name, %v", what, len(got), err)
		}
	}
}

// TestRunOfSealedOrphans: what was adopted tells about the orphans beside it.
func TestRunOfSealedOrphans(t *testing.T) { withPublicKeys(t, "x", testRunOfSealedOrphans) }

func testRunOfSealedOrphans(t *testing.T) {
	w := newWriter()
	w.Fill(6)
	full := w.Full()
	n := newTestNode(t, mem.New("x"), "n1", w)
	n.copyFrom(w, ".ready")
	for _, g := range full[1:5] {
		if err := n.orphan(t.Context(), n.local, wal.SegmentName(g)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(n.dir, g.String())); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Rescan(); err != nil {
		t.Fatal(err)
	}
	n.shipAll(1)
	n.BeginTerm(t.Context(), 2, Set{})
	if err := n.AdoptOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := stored(t, n.Archive())
	for _, g := range full[1:5] {
		if !bytes.Equal(got[g.String()], w.Segment(g)) {
			t.Errorf("%v was not adopted", g)
		}
	}
}
