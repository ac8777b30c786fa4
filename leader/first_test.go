package leader

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// Two releases run side by side while a cluster is upgraded, and again when it is taken back, so each reads the records of the other. What the first
// release (commit f40cf83) wrote is testdata/first/record.json, and what it read is firstRecord. Neither is ever changed.

// firstRecord is how the first release reads a record of version 1: fields that it does not know are ignored, and a field that it knows and that has
// another type makes the whole record unreadable to it. Ranges are text.
type firstRecord struct {
	Version     int         `json:"version"`
	Member      string      `json:"member"`
	Policy      string      `json:"policy"`
	MaxLag      uint64      `json:"max_lag"`
	Software    string      `json:"software"`
	Address     string      `json:"address"`
	SystemID    uint64      `json:"system_id,string"`
	Tag         string      `json:"tag"`
	SegmentSize uint32      `json:"segment_size"`
	Role        string      `json:"role"`
	Timeline    uint32      `json:"timeline"`
	History     []firstFork `json:"history"`
	ArchiveMode string      `json:"archive_mode"`
	Has         string      `json:"has"`
	Misses      string      `json:"misses"`
	Store       bool        `json:"store"`
	Tried       string      `json:"tried"`
	Holder      *struct {
		Term   uint64      `json:"term"`
		Rule   string      `json:"rule"`
		Mark   []firstMark `json:"mark"`
		Lacks  string      `json:"lacks"`
		Errand string      `json:"errand"`
		Alarm  string      `json:"alarm"`
	} `json:"holder"`
}

type firstFork struct {
	Timeline uint32 `json:"timeline"`
	End      uint64 `json:"end"`
}

type firstMark struct {
	Timeline uint32 `json:"timeline"`
	Next     uint64 `json:"next"`
}

// firstText is the frozen record.
func firstText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/first/record.json")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// ofFirst is what the frozen record says.
func ofFirst(t *testing.T) Record {
	return Record{Version: 1, Member: "n1", Policy: PolicyReplica, MaxLag: 1 << 27, Software: "0.1", Address: "10.0.0.1:9847",
		SystemID: 7268616322854375442, Tag: TagDesignated, SegmentSize: 16 << 20, Role: RolePrimary, Timeline: 2,
		History: []Fork{{1, 0x3000060}}, ArchiveMode: "always", Has: ranges(t, "1:1-2;2:3-8"), Misses: ranges(t, "2:8"), Store: true, Tried: ranges(t, "1:2"),
		Holder: &Holder{Term: 7, Rule: RuleErrand, Mark: []Mark{{1, 3}, {2, 8}}, Lacks: ranges(t, "1:0"), Errand: ranges(t, "2:8"), Alarm: "x"}}
}

// This release understands the records of the first.
func TestReadsFirstRelease(t *testing.T) {
	got, err := ParseRecord(firstText(t))
	if want := ofFirst(t); err != nil || !got.Readable() || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// The first release understands the records of this one, and what it knows of them means to it what it meant: they have all fields that there are.
func TestFirstReleaseReads(t *testing.T) {
	r := ofFirst(t)
	r.Receiver, r.Silent, r.Free, r.Restart = ReceiverStreams, 1, 1<<30, &Place{2, 7}
	whole(t, reflect.ValueOf(r), "Record")
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var got, want firstRecord
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("the first release cannot read %s: %v", text, err)
	}
	if err := json.Unmarshal([]byte(firstText(t)), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the first release reads\n%+v, want\n%+v", got, want)
	}
}

// whole fails the test when a field that is written has no value: a new one belongs into the record above.
func whole(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.IsZero() {
		t.Errorf("%s has no value here: give it one, so that it is seen what the first release makes of it", name)
	}
	if v.Kind() == reflect.Struct {
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Tag.Get("json") != "-" {
				whole(t, v.Field(i), name+"."+f.Name)
			}
		}
	}
}
