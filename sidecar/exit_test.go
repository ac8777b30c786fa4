package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestExitCodes(t *testing.T) {
	plain := errors.New("refused")
	recovery, standby := t.TempDir(), t.TempDir()
	writeFile(t, recovery, "recovery.signal", "")
	writeFile(t, standby, "recovery.signal", "")
	writeFile(t, standby, "standby.signal", "")
	for name, tc := range map[string]struct {
		err                               error
		code, recovery, standby, noSignal int
	}{
		"none":           {nil, 0, 0, 0, 0},
		"any":            {plain, 1, 200, 1, 1},
		"configuration":  {fmt.Errorf("run: %w", configError("listen", "no port")), 2, 200, 1, 1},
		"with a hint":    {withHint(configError("", "x"), "try y"), 2, 200, 1, 1},
		"found":          {withCode(exitFound, plain), 3, 200, 1, 1},
		"nothing to say": {justCode(exitFound), 3, 200, 1, 1},
		"not there":      {withCode(exitFailed, plain), 1, 1, 1, 1},
		"cannot say":     {withHint(withCode(exitCannotSay, plain), "wait"), 200, 200, 200, 200},
		"ended":          {fmt.Errorf("fetch: %w", context.Canceled), 143, 143, 143, 143},
	} {
		got := []int{exitCode(tc.err), fetchCode(tc.err, recovery), fetchCode(tc.err, standby), fetchCode(tc.err, t.TempDir())}
		for i, want := range []int{tc.code, tc.recovery, tc.standby, tc.noSignal} {
			if got[i] != want {
				t.Errorf("%s: got %v, want %d at %d", name, got, want, i)
			}
		}
	}
}

func TestExplainError(t *testing.T) {
	err := fmt.Errorf("start: %w", withHint(errors.New("port taken"), "choose another:\n  --listen :9848"))
	if got := explainError(fmt.Errorf("status: %w", justCode(exitFound))); got != "" {
		t.Errorf("a code alone: got %q, want nothing", got)
	}
	if got, want := explainError(err), "walbaton: start: port taken\n  choose another:\n    --listen :9848\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
