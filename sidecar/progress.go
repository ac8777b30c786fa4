package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progress draws one line on a terminal for work that takes longer than two seconds. Elsewhere it draws
// nothing. Its methods are for one goroutine at a time.
type progress struct {
	w     io.Writer // nil: no terminal
	what  string
	begin time.Time
	last  time.Time
	width int // letters on the line
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what, begin: time.Now()}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		p.w = w
	}
	return p
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// show says how far the work is; all is 0 while that is not known.
func (p *progress) show(done, all int) {
	now := time.Now()
	if p.w == nil || now.Sub(p.begin) < 2*time.Second || now.Sub(p.last) < 200*time.Millisecond {
		return
	}
	p.last = now
	rate := float64(done) / now.Sub(p.begin).Seconds()
	line := fmt.Sprintf("%s  %d objects, %.0f a second", p.what, done, rate)
	if all > 0 {
		full := min(30*done/all, 30)
		line = fmt.Sprintf("%s  [%s%s] %d of %d objects", p.what, strings.Repeat("#", full), strings.Repeat(".", 30-full), done, all)
		if done > 0 {
			left := time.Duration(float64(all-done) / rate * float64(time.Second))
			line += fmt.Sprintf(", %.0f a second, %v left", rate, left.Round(time.Second))
		}
	}
	_, _ = fmt.Fprintf(p.w, "\r%-*s", p.width, line)
	p.width = len(line)
}

// end takes the line away.
func (p *progress) end() {
	if p.w != nil && p.width > 0 {
		_, _ = fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
	}
}
