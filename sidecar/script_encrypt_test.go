package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store/file"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/archiver/wal/waltest"
)

// sealedCmd is the command "sealed" of scripts: it makes the archive $WORK/archive of scope shop, in which
//
//	segments 1, 2  are not encrypted
//	segment 3      is encrypted to the keys in key.txt and second.txt
//	segment 4      to that in key.txt
//	segment 5      to one that is lost
//	segment 6      to that in key.txt, and the half of it is missing
//
// the files plain/<number>, the data directories recovery and standby, whose pg_control is that of the cluster, and
// the variables $RECIPIENT, $SECOND and $SECRET.
func sealedCmd(ts *testscript.TestScript, _ bool, _ []string) {
	w := waltest.New(testSystemID, 1<<20)
	w.Commit(time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC))
	w.Fill(6)
	full := w.Full()
	ts.Check(makeArchive(ts.MkAbs("archive"), full[0], map[wal.Segment][]byte{full[0]: w.Segment(full[0]), full[1]: w.Segment(full[1])}))
	var keys []*age.X25519Identity
	for _, name := range []string{"key.txt", "second.txt", "lost"} {
		id, err := age.GenerateX25519Identity()
		ts.Check(err)
		keys = append(keys, id)
		if name != "lost" {
			ts.Check(os.WriteFile(ts.MkAbs(name), []byte("# public key: "+id.Recipient().String()+"\n"+id.String()+"\n"), 0o600))
		}
	}
	key, second, lost := keys[0].Recipient(), keys[1].Recipient(), keys[2].Recipient()
	for no, to := range map[int][]seal.Recipient{2: {key, second}, 3: {key}, 4: {lost}, 5: {key}} {
		ts.Check(putEncrypted(ts.MkAbs("archive"), full[no], w.Segment(full[no]), to...))
	}
	half := filepath.Join(ts.MkAbs("archive"), "shop", strconv.FormatUint(testSystemID, 10), "wal", "00000001", full[5].String())
	st, err := os.Stat(half)
	ts.Check(err)
	ts.Check(os.Truncate(half, st.Size()/2))
	ts.Check(os.Mkdir(ts.MkAbs("plain"), 0o700))
	for i, s := range full[:6] {
		ts.Check(os.WriteFile(ts.MkAbs(filepath.Join("plain", string(rune('1'+i)))), w.Segment(s), 0o600))
	}
	for _, dir := range []string{"recovery", "standby"} {
		ts.Check(os.MkdirAll(ts.MkAbs(dir+"/global"), 0o700))
		ts.Check(os.MkdirAll(ts.MkAbs(dir+"/pg_wal"), 0o700))
		ts.Check(os.WriteFile(ts.MkAbs(dir+"/global/pg_control"), controlFile(w.Pos()), 0o600))
		ts.Check(os.WriteFile(ts.MkAbs(dir+"/"+dir+".signal"), nil, 0o600))
	}
	ts.Setenv("RECIPIENT", key.String())
	ts.Setenv("SECOND", second.String())
	ts.Setenv("SECRET", keys[0].String())
}

func putEncrypted(dir string, g wal.Segment, plain []byte, to ...seal.Recipient) error {
	ctx := context.Background()
	s, err := file.Open(dir)
	if err != nil {
		return err
	}
	a, err := archiver.OpenArchive(ctx, s, "shop", testSystemID)
	if err != nil {
		return err
	}
	sealer, err := seal.New(seal.Zstd, to...)
	if err != nil {
		return err
	}
	packed, err := sealer.Pack(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		return err
	}
	defer packed.Close()
	sealed, err := packed.Seal(seal.Header{Name: g.String(), SystemID: testSystemID, Member: "n9", Term: 7})
	if err != nil {
		return err
	}
	return a.Put(ctx, a.Key(wal.SegmentName(g)), sealed)
}
