package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/walbaton/walbaton/sidecar/drill"
)

// handover is one switchover or one failover under light load. All times are in milliseconds after etcd told a watcher that Patroni's
// key "leader" has the new name. The clock is one, since all run on one machine.
type handover struct {
	From, To string
	Killed   float64 `json:",omitempty"` // how long before the leader key the old holder was killed; 0: it lives
	Baton    float64 // the key of walbaton's baton has the new name, as the same watcher was told
	Exists   float64 // the first file that the new holder put is in its pg_wal, finished
	FirstPut float64 // it has its name in the archive
	First    string  // which file that was
	Load     load
}

const writerLoad = 1 << 20 // bytes of rows a second while it switches over

func (b *bench) handovers(ctx context.Context) (err error) {
	c, err := b.cluster(ctx, drill.Files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	keys, err := watch(ctx, c)
	if err != nil {
		return err
	}
	defer keys.stop()
	w, err := c.Write(ctx, writerLoad)
	if err != nil {
		return err
	}
	defer w.Stop()
	var all []handover
	for i := range b.switchovers + b.kills {
		next := keys.switchover
		if i >= b.switchovers {
			next = keys.failover
		}
		h, err := next(ctx, c)
		if err != nil {
			return err
		}
		b.say("%s to %s: leader key %.0f ms after a kill (0: none), baton %.0f ms, %s written %.0f ms and put %.0f ms after the leader key",
			h.From, h.To, h.Killed, h.Baton, h.First, h.Exists, h.FirstPut)
		all = append(all, h)
		if err := b.save(ctx, "handover", all); err != nil {
			return err
		}
	}
	return nil
}

// cluster starts three nodes, with segments of 16 MB.
func (b *bench) cluster(ctx context.Context, place drill.Place) (*drill.Cluster, error) {
	c, err := drill.New(ctx, drill.Options{SegmentMB: 16, Place: place})
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// switchover is one of them, to the next node: the old holder lives.
func (k *keys) switchover(ctx context.Context, c *drill.Cluster) (h handover, err error) {
	if err := c.AllStreaming(ctx); err != nil {
		return h, err
	}
	from, err := c.Primary(ctx)
	if err != nil {
		return h, err
	}
	to := c.Standbys(from)[0]
	if from == c.Nodes[1] {
		to = c.Nodes[2] // round, so that each node is asked
	}
	begin, before := time.Now(), loadAverage()
	if err := c.Switchover(ctx, to); err != nil {
		return h, err
	}
	h, _, err = k.follow(ctx, c, from, begin)
	h.Load.Before = before
	return h, err
}

// failover kills the node that leads and ships, as when the machine dies. It comes back when the new leader has put something.
func (k *keys) failover(ctx context.Context, c *drill.Cluster) (h handover, err error) {
	if err := c.AllStreaming(ctx); err != nil {
		return h, err
	}
	from, err := c.Primary(ctx)
	if err != nil {
		return h, err
	}
	begin, before := time.Now(), loadAverage()
	if err := from.Kill(ctx); err != nil {
		return h, err
	}
	h, leader, err := k.follow(ctx, c, from, begin)
	h.Load.Before, h.Killed = before, milliseconds(begin, leader)
	return h, errors.Join(err, from.Start(ctx))
}

// follow waits for what comes after from has lost the leader key, and says when another node got that.
func (k *keys) follow(ctx context.Context, c *drill.Cluster, from *drill.Node, begin time.Time) (h handover, leader time.Time, err error) {
	var to *drill.Node
	var first drill.Object
	var put, baton time.Time
	err = until(ctx, 2*time.Minute, 100*time.Millisecond, "another node than "+from.Name+" has the baton and has put something", func() (bool, error) {
		for _, n := range c.Standbys(from) {
			if at := k.find("leader", n.Name, begin); !at.IsZero() && (leader.IsZero() || at.Before(leader)) {
				to, leader = n, at
			}
		}
		if to == nil {
			return false, nil
		}
		if baton = k.find("walbaton/baton", to.Name, begin); baton.IsZero() {
			return false, nil
		}
		first, put, err = firstOf(ctx, c.Store, to.Name, leader)
		return first.Key != "", err
	})
	if err != nil {
		return h, leader, err
	}
	h = handover{From: from.Name, To: to.Name, First: path.Base(first.Key), Load: load{After: loadAverage()}}
	h.Baton, h.FirstPut = milliseconds(leader, baton), milliseconds(leader, put)
	if exists, err := changed(filepath.Join(to.PGData(), "pg_wal", h.First)); err == nil {
		h.Exists = milliseconds(leader, exists)
	}
	return h, leader, nil
}

func milliseconds(from, to time.Time) float64 { return float64(to.Sub(from).Microseconds()) / 1000 }

// firstOf finds the first object that a member put after a moment, and when it got its name: a file of a folder is
// linked to it when it is complete, and that changes the inode for the last time.
func firstOf(ctx context.Context, s drill.Store, member string, after time.Time) (first drill.Object, at time.Time, err error) {
	objects, err := s.Objects(ctx)
	if err != nil {
		return first, at, err
	}
	for _, o := range objects {
		if !strings.Contains(o.Key, "/wal/") && !strings.Contains(o.Key, "/history/") || strings.Contains(o.Key, "tmp") {
			continue
		}
		t, err := changed(filepath.Join(strings.TrimPrefix(s.URL(), "file://"), o.Key))
		if err != nil || t.Before(after) || !at.IsZero() && at.Before(t) {
			continue
		}
		text, err := s.Read(ctx, o.Key)
		if err != nil {
			return first, at, err
		}
		if by, err := sealedBy(text); err != nil {
			return first, at, fmt.Errorf("%s: %w", o.Key, err)
		} else if by == member {
			first, at = o, t
		}
	}
	return first, at, nil
}

// sealedBy is the member in an object's header: JSON in a skippable frame of zstd, after 4 bytes of magic and 4 of length.
func sealedBy(object []byte) (string, error) {
	if len(object) < 8 || len(object) < 8+int(binary.LittleEndian.Uint32(object[4:])) {
		return "", errors.New("too short for a header")
	}
	var header struct{ Member string }
	err := json.Unmarshal(object[8:8+binary.LittleEndian.Uint32(object[4:])], &header)
	return header.Member, err
}

// keys remembers what was written to the cluster's keys in etcd, and when we were told.
type keys struct {
	stop func()

	mu  sync.Mutex
	all []written
}

type written struct {
	key, value string
	at         time.Time
}

const prefix = "/service/drill/"

func watch(ctx context.Context, c *drill.Cluster) (*keys, error) {
	hosts, err := setting(filepath.Join(c.Nodes[0].Dir, "patroni.yml"), "hosts")
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + hosts}, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	k := &keys{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for answer := range client.Watch(ctx, prefix, clientv3.WithPrefix()) {
			k.add(answer.Events, time.Now())
		}
	})
	k.stop = func() {
		cancel()
		wg.Wait()
		client.Close()
	}
	return k, nil
}

func (k *keys) add(events []*clientv3.Event, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range events {
		if e.Type == clientv3.EventTypePut {
			k.all = append(k.all, written{strings.TrimPrefix(string(e.Kv.Key), prefix), string(e.Kv.Value), at})
		}
	}
}

// find is when a key first got a value with that name in it, after a moment; zero if it did not.
func (k *keys) find(key, name string, after time.Time) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.all {
		if w.key == key && w.at.After(after) && (w.value == name || strings.Contains(w.value, `"`+name+`"`)) {
			return w.at
		}
	}
	return time.Time{}
}

// setting is the value of a key of a YAML file that drill wrote.
func setting(file, key string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^\s*` + key + `: (\S+)$`).FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("%s: no %s", file, key)
	}
	return string(found[1]), nil
}

// killed are the hand-overs whose old holder was killed, or the others.
func killed(all []handover, yes bool) (some []handover) {
	for _, h := range all {
		if (h.Killed > 0) == yes {
			some = append(some, h)
		}
	}
	return some
}

// column is one of the times of all hand-overs.
func column(all []handover, name string) (values []float64) {
	for _, h := range all {
		values = append(values, map[string]float64{
			"Killed": h.Killed, "Baton": h.Baton, "Exists": h.Exists, "FirstPut": h.FirstPut,
			"BatonAfterKill": h.Killed + h.Baton, "FirstPutAfterKill": h.Killed + h.FirstPut,
		}[name])
	}
	return values
}

// handoverGoals are for an old holder that lives.
func handoverGoals(all []handover) []goal {
	lives := killed(all, false)
	return []goal{
		{What: "new term after the new leader key, median", Got: median(column(lives, "Baton")), Limit: 500, Unit: " ms"},
		{What: "first PUT after the new leader key, the slowest", Got: slices.Max(column(lives, "FirstPut")), Limit: 1000, Unit: " ms"},
	}
}

// handoverPlots are of the two kinds: the one is over before the other has begun.
func handoverPlots(raw []byte) (map[string]string, error) {
	var m measured[handover]
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	plots := map[string]string{}
	if some := killed(m.Result, false); len(some) > 0 {
		plots["handover"] = barChart("Switchover: time after Patroni's new leader key", "ms", []bar{
			{Label: "new term", Values: column(some, "Baton"), Ours: true},
			{Label: "file exists", Values: column(some, "Exists")},
			{Label: "first PUT", Values: column(some, "FirstPut"), Ours: true},
		})
	}
	if some := killed(m.Result, true); len(some) > 0 {
		plots["handover-kill"] = barChart("Leader killed: time after the kill", "ms", []bar{
			{Label: "Patroni's new leader key", Values: column(some, "Killed")},
			{Label: "first PUT", Values: column(some, "FirstPutAfterKill"), Ours: true},
			{Label: "new term", Values: column(some, "BatonAfterKill"), Ours: true},
		})
	}
	return plots, nil
}
