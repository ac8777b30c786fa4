package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for name, test := range map[string]struct {
		events string
		failed int
		prints string
	}{
		"all pass": {
			`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":2.5}
{"Action":"pass","Package":"p","Elapsed":3}`, 0, "pass p, 3.0s"},
		"one fails": {
			`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"fail","Package":"p","Elapsed":0.2}`, 1, "got 1, want 2"},
		"one is skipped": {
			`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"no server\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, 1, "no server"},
		"a package without tests": {
			`{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p"}`, 0, ""},
		"it does not build": {
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"undefined: x\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`, 1, "undefined: x"},
		"its program dies": {
			`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}`, 1, "panic: oh"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tally := newTally(&out)
			tally.read(strings.NewReader(test.events), false)
			if got := tally.summary(); got != test.failed {
				t.Errorf("%d failed, want %d", got, test.failed)
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("%q is not printed:\n%s", test.prints, out.String())
			}
		})
	}
}
