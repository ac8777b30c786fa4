package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// window says what can be restored, "" where nothing can be said.
func (st Status) window() string {
	w := st.Archive.Windows
	switch {
	case len(w) > 0:
	case !st.Archive.Open:
		return ""
	case !st.Baton.AsOf.IsZero():
		return "what can be restored is not known while the DCS does not answer: it is for the holder of the baton to look"
	case st.Archive.Verify != nil && st.Archive.Verify.Failed != "":
		return "what can be restored is not known: " + st.Archive.Verify.Failed
	case st.Archive.Verify != nil && st.Archive.Verify.At.IsZero():
		return "what can be restored is not known yet: the archive is looked at half a minute after a term begins"
	case st.Archive.Verify != nil:
		return "nothing can be restored yet: the archive has no whole segment of the line"
	case st.Baton.Holder != "" && st.Baton.Holder != st.Member:
		return fmt.Sprintf("what can be restored %s knows, which holds the baton: walbaton status there", st.Baton.Holder)
	default:
		return ""
	}
	last := w[len(w)-1]
	text := "You can restore to any moment from " + last.span() + ", with a base backup from in between"
	for i := len(w) - 2; i >= 0; i-- {
		text += fmt.Sprintf("\n          and from %s; between %s and %s WAL is missing", w[i].span(), w[i].ToLSN, w[i+1].FromLSN)
	}
	return text
}

// span is a window in words: by time where commits are known, else by LSN. PostgreSQL takes a time for reached when a later commit comes, so the end is
// given in whole seconds, cut.
func (w WindowStatus) span() string {
	if w.From.IsZero() || w.To.IsZero() {
		return fmt.Sprintf("%s to %s (no commit was found near its ends)", w.FromLSN, w.ToLSN)
	}
	return fmt.Sprintf("%s to %s", timeText(w.From.Add(time.Second-1)), timeText(w.To))
}

// problems are those that nobody acknowledged; of many the first.
func (v *VerifyStatus) problems() (out []string) {
	if v == nil || v.Problems == 0 {
		return nil
	}
	for _, p := range v.List {
		if p.Acknowledged == nil && len(out) < 3 {
			out = append(out, fmt.Sprintf("%s: %s (walbaton verify says more)", p.where(), p.sentence()))
		}
	}
	if more := v.Problems - len(out); more > 0 {
		out = append(out, fmt.Sprintf("the archive: %s more (walbaton verify)", counted(more, "problem")))
	}
	return out
}

// notes are the acknowledged holes: known, and never silent.
func (v *VerifyStatus) notes() (out []string) {
	if v == nil || v.KnownHoles == 0 {
		return nil
	}
	for _, p := range v.List {
		if p.Acknowledged != nil && len(out) < 3 {
			out = append(out, fmt.Sprintf("a hole in %s is acknowledged: %s; %s", p.where(), holeText(p), acknowledgedText(*p.Acknowledged)))
		}
	}
	if more := v.KnownHoles - len(out); more > 0 {
		out = append(out, fmt.Sprintf("%s more (walbaton verify)", counted(more, "acknowledged hole")))
	}
	return out
}

func (p VerifyProblem) where() string { return strings.TrimSpace("the archive " + p.Archive) }

// sentence is what is wrong, with the file's name in it.
func (p VerifyProblem) sentence() string {
	if strings.Contains(p.Why, p.Name) {
		return p.Why
	}
	return p.Name + " " + p.Why
}

func holeText(p VerifyProblem) string {
	if p.Count > 1 {
		return fmt.Sprintf("%s to %s", cmp.Or(p.From, p.Name), p.To)
	}
	return p.Name
}

// askHolder takes what only the holder of the baton knows from its sidecar, where that can be reached from here.
func (st *Status) askHolder(ctx context.Context, ask asker) {
	i := slices.IndexFunc(st.Members, func(m MemberStatus) bool { return m.Name == st.Baton.Holder })
	if st.Archive.Verify != nil || st.Baton.Holder == st.Member || i < 0 || !st.Members[i].Sidecar {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if other, err := st.Members[i].ask(ctx, ask, st.Scope); err == nil {
		st.Archive.Windows, st.Archive.Verify = other.Archive.Windows, other.Archive.Verify
	}
}
