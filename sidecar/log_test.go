package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRepeatsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := newLogger(&out, slog.LevelInfo)
		lines := func() string {
			defer out.Reset()
			var s []string
			for l := range strings.Lines(out.String()) {
				_, l, _ = strings.Cut(strings.TrimSpace(l), " ") // without the time
				s = append(s, l)
			}
			return strings.Join(s, "\n")
		}
		check := func(when, want string) {
			t.Helper()
			if got := lines(); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", when, got, want)
			}
		}
		down := func() { log.Warn("no answer", "error", errors.New("refused")) }
		for range 5 {
			down()
		}
		check("the first of five", `level=WARN msg="no answer" error=refused`)
		log.Warn("no answer", "error", errors.New("timeout"))
		log.With("store", "b").Warn("no answer", "error", errors.New("refused"))
		check("others", "level=WARN msg=\"no answer\" error=timeout\nlevel=WARN msg=\"no answer\" store=b error=refused")
		for range 2 {
			log.Info("took the baton", "term", 7)
		}
		check("what is normal", "level=INFO msg=\"took the baton\" term=7\nlevel=INFO msg=\"took the baton\" term=7")
		time.Sleep(time.Minute)
		down()
		check("a minute later", `level=WARN msg="no answer" error=refused repeated=4`)
		time.Sleep(time.Minute)
		down()
		check("two minutes later", `level=WARN msg="no answer" error=refused`)
		for i := range 3 * maxRepeats {
			log.Error(fmt.Sprint(i))
		}
		if n := len(log.Handler().(*quiet).repeats.seen); n > maxRepeats {
			t.Errorf("%d lines are remembered, want at most %d", n, maxRepeats)
		}
	})
}
