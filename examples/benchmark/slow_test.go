package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSlowStore puts many objects through the proxy: each kind of failure is what it says, and the server sees the host that the client signed.
func TestSlowStore(t *testing.T) {
	var mu sync.Mutex
	had := map[string]int{}
	var proxy *slowStore
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && string(body) == "WAL" && "http://"+r.Host == proxy.url {
			had[r.URL.Path]++
		}
	}))
	defer server.Close()
	const all, delay = 200, 2 * time.Millisecond
	proxy, err := newSlowStore(server.URL, delay, 0.2, all)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}} // one of its own repeats no request
	defer client.CloseIdleConnections()
	answered := map[string]int{}
	begin := time.Now()
	for i := range all {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("%s/wal/bench/1/wal/00000001/%024X", proxy.url, i), strings.NewReader("WAL"))
		if err != nil {
			t.Fatal(err)
		}
		req.GetBody = nil
		resp, err := client.Do(req)
		if err != nil {
			answered["reset"]++
			continue
		}
		answered[resp.Status]++
		resp.Body.Close()
	}
	if took := time.Since(begin); took < all*delay {
		t.Errorf("%d requests took %v, with %v each", all, took, delay)
	}
	requests, failed := proxy.counted()
	busy, lost, before := failed[failBusy], failed[failLost], failed[failReset]
	if requests != all || busy == 0 || lost == 0 || before == 0 || busy+lost+before < all/10 {
		t.Errorf("%d requests, of which failed %v", requests, failed)
	}
	if answered["503 Service Unavailable"] != busy || answered["reset"] != lost+before || answered["200 OK"] != all-busy-lost-before {
		t.Errorf("the client got %v, and %v should fail", answered, failed)
	}
	if len(had) != all-busy-before {
		t.Errorf("the server had %d requests, and of %d %v failed", len(had), all, failed)
	}
	if first, last := proxy.times(); proxy.done() || len(proxy.stored) != len(had) || !last.After(first) {
		t.Errorf("%d noted from %v to %v", len(proxy.stored), first, last)
	}
	if err := proxy.close(); err != nil {
		t.Error(err)
	}
}

func TestSlowTable(t *testing.T) {
	table := slowTableOf([]slowed{
		{Workers: 1, Segments: 101, Seconds: 1}, // 10 ms each
		{Workers: 1, Delay: 50, Segments: 101, Seconds: 10},
		{Workers: 4, Delay: 50, Segments: 401, Seconds: 8},
		{Workers: 1, Delay: 50, Segments: 101, Seconds: 20},
	})
	if len(table.Groups) != 2 || table.Alone[0] != 10 {
		t.Fatalf("table: %+v", table)
	}
	one, four := table.Groups[0], table.Groups[1]
	if median(one.Rate()) != 7.5 || four.Rate()[0] != 50 || four.Ideal != 4000.0/60 || four.Share()[0] != 75 {
		t.Errorf("one worker: %+v %v; four: %+v %v, %v %%", one, one.Rate(), four, four.Rate(), four.Share())
	}
}

func TestIdleGoals(t *testing.T) {
	gs := idleGoals([]idled{
		{Seconds: 100, CPU: 0.2, Anon: 30 << 20},
		{Seconds: 100, CPU: 0.1, Anon: 65 << 20, Written: map[string]int{"records/n2": 2}},
	})
	if !gs[0].met() || gs[0].Got != 0.2 || gs[1].met() || gs[2].met() || gs[2].Got != 2 {
		t.Errorf("goals: %v", gs)
	}
}
