package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	every   = 2 * time.Second        // between two documents while somebody looks and nothing changes
	soonest = 200 * time.Millisecond // between two documents, whatever changes
	stalled = 10 * time.Second       // for which a page may not read before it is hung up on
	viewers = 64                     // pages at the same time
)

// share gives the same document to all who look, and gathers it for none of them.
type share struct {
	src   Sources
	turn  chan struct{} // held by who gathers, and looks at last
	seats chan struct{} // one for each page
	last  *news
}

// news is one document. It is never changed.
type news struct {
	at      time.Time // before it was gathered
	changed <-chan struct{}
	value   any
	line    []byte // of JSON
}

func newShare(src Sources) *share {
	return &share{src: src, turn: make(chan struct{}, 1), seats: make(chan struct{}, viewers)}
}

// old says whether somebody who looks now wants another document.
func (n *news) old(now time.Time) bool {
	select {
	case <-n.changed:
		return now.Sub(n.at) >= soonest
	default:
		return now.Sub(n.at) >= every
	}
}

// after gives a document that is not have: what another page was given in the meantime, or a new one.
func (s *share) after(ctx context.Context, have *news) (*news, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if s.last != nil && s.last != have && !s.last.old(time.Now()) {
		return s.last, nil
	}
	n := &news{at: time.Now(), changed: s.src.Changed()}
	n.value = s.src.Cluster(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err() // who gathered has left, and others did not answer in time because of that
	}
	var err error
	if n.line, err = json.Marshal(n.value); err != nil {
		return nil, fmt.Errorf("write the cluster: %w", err)
	}
	s.last = n
	return n, nil
}

// wait returns when n is old.
func (n *news) wait(ctx context.Context) error {
	timer := time.NewTimer(time.Until(n.at.Add(every)))
	defer timer.Stop()
	select {
	case <-n.changed:
		timer.Reset(time.Until(n.at.Add(soonest)))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// once answers with one document.
func (s *share) once(w http.ResponseWriter, r *http.Request) {
	n, err := s.after(r.Context(), nil)
	if err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	document(w, n.value)
}

// events sends documents until the page is closed, or the server stops.
func (s *share) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.seats <- struct{}{}:
		defer func() { <-s.seats }()
	default:
		w.Header().Set("Retry-After", "10")
		plain(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages of this sidecar are open already", viewers))
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request was read; a connection that cannot have deadlines has none
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must not hold events back
	begin := "retry: 2000\n\n"
	var n *news
	for {
		var err error
		if n, err = s.after(r.Context(), n); err != nil {
			return
		}
		_ = control.SetWriteDeadline(time.Now().Add(stalled))
		if _, err := fmt.Fprintf(w, "%sevent: cluster\ndata: %s\n\n", begin, n.line); err != nil {
			return // the page was closed
		}
		if control.Flush() != nil || n.wait(r.Context()) != nil {
			return
		}
		begin = ""
	}
}
