package main

import "testing"

func TestGoal(t *testing.T) {
	for _, test := range []struct {
		goal goal
		want string
	}{
		{goal{What: "first PUT", Got: 904, Limit: 1000, Unit: " ms"}, "first PUT: 904 ms. The goal is at most 1000 ms: met (0.90 of it)."},
		{goal{What: "GETs", Got: 1.01, Limit: 1}, "GETs: 1.01. The goal is at most 1: **not met** (1.01 of it)."},
		{goal{What: "rate", Got: 1.158, Limit: 2, AtLeast: true}, "rate: 1.16. The goal is at least 2: **not met** (0.58 of it)."},
		{goal{What: "rate", Got: 2, Limit: 2, AtLeast: true}, "rate: 2. The goal is at least 2: met (1.00 of it)."},
		{goal{What: "PUTs", Got: 1}, "PUTs: 1. The goal is at most 0: **not met**."},
	} {
		if got := test.goal.String(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestBeginOf(t *testing.T) {
	if got, err := beginOf("0000000100000002000000A5"); got != "2/A5000000" || err != nil {
		t.Errorf("beginOf = %q, %v", got, err)
	}
}

// TestStandbyGoals: the holder's PUTs are none of a standby's, and what a standby asks while nothing is done counts.
func TestStandbyGoals(t *testing.T) {
	goals := standbyGoals([]standby{
		{Role: "holder", Segments: 10, Requests: map[string]float64{"put ok": 10, "list ok": 3}},
		{Role: "standby", Segments: 10, Requests: map[string]float64{"get ok": 10, "get absent": 2}, Received: 1200},
		{Role: "standby", Requests: map[string]float64{"list ok": 1}},
	})
	var got [4]float64
	for i, g := range goals {
		got[i] = g.Got
	}
	if want := [4]float64{1.2, 100, 1, 0}; got != want {
		t.Errorf("GETs, bytes, LISTs and PUTs: got %v, want %v", got, want)
	}
}
