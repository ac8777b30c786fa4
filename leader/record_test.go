package leader

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/leader/dcs"
)

func TestRecordRoundTrip(t *testing.T) {
	want := Record{Version: 1, Member: "n1", Policy: PolicyReplica, MaxLag: 1 << 27, Software: "1.2", Address: "10.0.0.1:9847",
		SystemID: 7268616322854375442, Tag: TagDesignated, SegmentSize: 16 << 20, Role: RolePrimary, Timeline: 2,
		History: []Fork{{1, 0x3000060}}, ArchiveMode: "always", Has: ranges(t, "1:1-2;2:3-8"), Misses: ranges(t, "2:8"), Store: true,
		Holder: &Holder{Term: 7, Rule: RuleErrand, Mark: []Mark{{1, 3}, {2, 8}}, Lacks: ranges(t, "1:0"), Errand: ranges(t, "2:8"), Alarm: "x"}}
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back %+v, %v\nwant %+v", got, err, want)
	}
	if !strings.Contains(text, `"has":"1:1-2;2:3-8"`) || !strings.Contains(text, `"system_id":"7268616322854375442"`) {
		t.Errorf("record: %s", text)
	}
}

func TestRecordIsASCII(t *testing.T) {
	r := Record{Version: 1, Member: "b\u00e4r\U0001F43B\x7f\x01\xff", Address: "<&>\u2028"}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := dcs.CheckValue(text); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(text), &back); err != nil || back["member"] != "b\u00e4r\U0001F43B\x7f\x01\ufffd" {
		t.Errorf("reads back as %q, %v", back["member"], err)
	}
}

// TestRecordStaysSmall: a pg_wal with a hole after every segment makes no record that the
// DCS refuses, and what is left of it are the oldest segments.
func TestRecordStaysSmall(t *testing.T) {
	var holes Ranges
	for no := uint64(1 << 40); no < 1<<40+40000; no += 2 {
		holes = append(holes, Range{0xFFFFFFFF, no, no})
	}
	r := Record{Version: 1, Has: holes, Misses: holes, Tried: holes, Holder: &Holder{Lacks: holes, Errand: holes}}
	text, err := r.Encode()
	if err != nil || dcs.CheckValue(text) != nil {
		t.Fatalf("%d bytes, %v, %v", len(text), err, dcs.CheckValue(text))
	}
	back, err := ParseRecord(text)
	if err != nil || len(back.Has) == 0 || !back.Has.Equal(holes[:len(back.Has)]) || r.Holder.Lacks.Count() != holes.Count() {
		t.Errorf("has %d runs, %v", len(back.Has), err)
	}
}

func TestRecordOfOthers(t *testing.T) {
	newer, err := ParseRecord(`{"version":2,"has":{"shape":"unknown"},"store":"yes"}`)
	if err != nil || newer.Version != 2 || newer.Readable() {
		t.Errorf("newer major: %+v, %v", newer, err)
	}
	same, err := ParseRecord(`{"version":1,"store":true,"system_id":"5","new_field":[1]}`)
	if err != nil || !same.Readable() || !same.Store || same.SystemID != 5 {
		t.Errorf("unknown field: %+v, %v", same, err)
	}
	for _, junk := range []string{"", "null x", "[]", `{"version":1,"has":"zz"}`, `{"version":"1"}`} {
		if r, err := ParseRecord(junk); err == nil {
			t.Errorf("ParseRecord(%q) = %+v, want an error", junk, r)
		}
	}
}
