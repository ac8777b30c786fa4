package rehearsal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/walbaton/walbaton/leader/patroni/restapi"
)

// healthy is a cluster of three that is fit for a rehearsal.
func healthy() facts {
	f := facts{scope: "shop", systemID: 7710597796492160055, maxLag: 1 << 20}
	for i, name := range []string{"n1", "n2", "n3"} {
		m := restapi.Member{Name: name, Role: "replica", State: "streaming", URL: "http://10.0.0.1:8008", Timeline: 3, Lag: 0.0, Host: "10.0.0.1", Port: 5432}
		if i == 0 {
			m.Role, m.State, m.Lag = "leader", "running", nil
		}
		f.cluster.Members = append(f.cluster.Members, m)
	}
	f.node = restapi.Node{State: "running", Role: "primary", Timeline: 3, SystemID: "7710597796492160055"}
	f.node.Patroni.Scope = "shop"
	if err := json.Unmarshal([]byte(`{"member": "n1", "scope": "shop", "system_identifier": "7710597796492160055", "ready": true, "dcs": {"answers": true}, "baton": {"holder": "n1", "term": 4},
		"archive": {"open": true, "answers": true}, "members": [
		{"name": "n1", "sidecar": true, "store_answers": true, "archive_mode": "always"},
		{"name": "n2", "sidecar": true, "store_answers": true, "archive_mode": "always", "address": ":9847", "host": "10.0.0.2"},
		{"name": "n3", "sidecar": true, "store_answers": true, "archive_mode": "always", "address": "10.0.0.3:9847"}]}`), &f.sidecar); err != nil {
		panic(err)
	}
	return f
}

// TestRefuse: each thing that makes a cluster unfit is named, alone, and a healthy one is not refused.
func TestRefuse(t *testing.T) {
	for want, change := range map[string]func(*facts){
		"":                                     func(*facts) {},
		"Patroni is paused (maintenance mode)": func(f *facts) { f.cluster.Paused = true },
		"a switchover is scheduled already":    func(f *facts) { f.cluster.Scheduled = map[string]any{"at": "tomorrow"} },
		"no member has the leader key":         func(f *facts) { f.cluster.Members[0].Role = "replica" },
		"it is a standby cluster":              func(f *facts) { f.cluster.Members[0].Role = "standby_leader" },
		"the leader n1 is no running primary: its Patroni says primary, st": func(f *facts) { f.node.State = "stopping" },
		"failsafe mode is active":                        func(f *facts) { f.node.Failsafe = true },
		"n2 is stopped: all members must run and follow": func(f *facts) { f.cluster.Members[1].State = "stopped" },
		"n3 is in an unknown state":                      func(f *facts) { f.cluster.Members[2].State = "" },
		"n3 is on timeline 2, and the leader n1 on 3":    func(f *facts) { f.cluster.Members[2].Timeline = 2 },
		"there is no replica that could take over":       func(f *facts) { f.cluster.Members = f.cluster.Members[:1] },
		"no replica could take over (n2: it has the tag nofailover; n3: how far it lags behind is not known)": func(f *facts) {
			f.cluster.Members[1].Tags, f.cluster.Members[2].Lag = json.RawMessage(`{"nofailover": true}`), "unknown"
		},
		"more than maximum_lag_on_failover (1048576)": func(f *facts) { f.cluster.Members[1].Lag, f.cluster.Members[2].Lag = 2e6, 3e6 },
		"it is no synchronous standby":                func(f *facts) { f.synchronous = true },
		"n3 cannot become the primary: it has the tag nofailover": func(f *facts) {
			f.candidate, f.cluster.Members[2].Tags = "n3", json.RawMessage(`{"nofailover": true}`)
		},
		"n1 is the primary already":                              func(f *facts) { f.candidate = "n1" },
		"there is no member n7: --candidate takes one of n2, n3": func(f *facts) { f.candidate = "n7" },
		"Patroni's REST API is that of the cluster bank":         func(f *facts) { f.node.Patroni.Scope = "bank" },
		"and the archive is that of 12":                          func(f *facts) { f.systemID, f.sidecar.SystemID = 12, 12 },
		"the sidecar of n1 is of another cluster":                func(f *facts) { f.sidecar.SystemID = 12 },
		"has no open archive: no such bucket":                    func(f *facts) { f.sidecar.Archive.Open, f.sidecar.Archive.Why = false, "no such bucket" },
		"the archive does not answer the sidecar of n1":          func(f *facts) { f.sidecar.Archive.Answers = false },
		"the sidecar of n1 is not ready: tired":                  func(f *facts) { f.sidecar.Ready, f.sidecar.Why = false, "tired" },
		"nobody holds the baton":                                 func(f *facts) { f.sidecar.Baton.Holder = "" },
		"the archive does not answer the sidecar of n2":          func(f *facts) { f.sidecar.Members[1].Store = false },
		"archive_mode is off at n3":                              func(f *facts) { f.sidecar.Members[2].ArchiveMode = "off" },
		"no sidecar answers beside n2":                           func(f *facts) { f.sidecar.Members[1].Sidecar = false },
	} {
		f := healthy()
		change(&f)
		why := refuse(f)
		if want == "" && len(why) > 0 || want != "" && (len(why) != 1 || !strings.Contains(why[0], want)) {
			t.Errorf("got %q, want %q alone", why, want)
		}
	}
}

// TestRefuseNamesAll: a person wants to mend everything at once.
func TestRefuseNamesAll(t *testing.T) {
	f := healthy()
	f.cluster.Paused, f.cluster.Members[1].State, f.sidecar.Baton.Holder = true, "start failed", ""
	if got := refuse(f); len(got) != 3 {
		t.Errorf("got %q, want three reasons", got)
	}
}

// TestAskLags: by Patroni's keys, which are old, all lag too far behind; the members themselves say that n2 does not.
func TestAskLags(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		has := map[string]uint64{"n2": 99 << 20, "n3": 1 << 20, "n4": 0}[strings.Split(r.URL.Path, "/")[1]]
		fmt.Fprintf(w, `{"state": "running", "role": "replica", "xlog": {"received_location": %d, "replayed_location": %d}}`, has, has/2)
	}))
	defer server.Close()
	api, err := restapi.New(restapi.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	f := healthy()
	f.cluster.Members = append(f.cluster.Members, f.cluster.Members[2])
	f.cluster.Members[3].Name = "n4"
	f.node.XLog.Location = 100 << 20
	for i := range f.cluster.Members[1:] {
		m := &f.cluster.Members[i+1]
		m.Lag, m.URL = 5e6, server.URL+"/"+m.Name
	}
	(&Rehearsal{o: Options{API: api}}).askLags(t.Context(), &f)
	var got []any
	for _, m := range f.cluster.Members[1:] {
		got = append(got, m.Lag)
	}
	if want := []any{float64(1 << 20), float64(99 << 20), 5e6}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestRefuseLess: where Patroni is read through its REST API there is no baton, and other sidecars are not known; in synchronous mode a synchronous standby may take over; a Citus
// group is called as Patroni calls it, with its number.
func TestRefuseLess(t *testing.T) {
	for name, change := range map[string]func(*facts){
		"rest": func(f *facts) {
			f.sidecar.DCS.REST, f.sidecar.Baton.Holder, f.sidecar.Members = true, "", nil
		},
		"synchronous": func(f *facts) { f.synchronous, f.cluster.Members[2].Role = true, "sync_standby" },
		"quorum":      func(f *facts) { f.synchronous, f.cluster.Members[2].Role = true, "quorum_standby" },
		"citus":       func(f *facts) { f.scope = "shop-1" },
		"candidate":   func(f *facts) { f.candidate = "n3" },
	} {
		f := healthy()
		change(&f)
		if got := refuse(f); len(got) > 0 {
			t.Errorf("%s: got %q, want nothing", name, got)
		}
	}
}

// TestMembers: a sidecar that listens on all addresses answers on its member's host.
func TestMembers(t *testing.T) {
	f := healthy()
	var got []string
	for _, m := range f.members("127.0.0.1:9847") {
		got = append(got, m.sidecar)
	}
	if want := []string{"127.0.0.1:9847", "10.0.0.1:9847", "10.0.0.3:9847"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for in, want := range map[string]string{"0.0.0.0:9847": "h:9847", "[::]:9847": "h:9847", "nonsense": "", "10.0.0.9:1": "10.0.0.9:1"} {
		if got := reachable(in, "h"); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestSynchronous(t *testing.T) {
	for v, want := range map[any]bool{true: true, "on": true, "quorum": true, false: false, "off": false, nil: false} {
		if got := synchronous(v); got != want {
			t.Errorf("%v: got %v, want %v", v, got, want)
		}
	}
}
