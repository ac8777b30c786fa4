package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// teller counts how often it is asked, and says when something has changed.
type teller struct {
	mu      sync.Mutex
	asked   int
	changed chan struct{}
	takes   time.Duration
}

func (s *teller) sources() Sources {
	src := still()
	s.changed = make(chan struct{})
	src.Cluster = func(ctx context.Context) any {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		return s.asked
	}
	src.Changed = func() <-chan struct{} {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.changed
	}
	return src
}

func (s *teller) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *teller) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// viewer is a page that is open until close.
type viewer struct {
	*httptest.ResponseRecorder
	close func()
}

func look(t *testing.T, sh *share) *viewer {
	ctx, cancel := context.WithCancel(t.Context())
	v := &viewer{ResponseRecorder: httptest.NewRecorder()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sh.events(v, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil))
	}()
	v.close = func() { cancel(); <-done }
	return v
}

// Nobody looks, nobody is asked; however many look, one is asked every two seconds, at once after a change, and five times a second at most.
func TestGatheredOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &teller{}
		sh := newShare(s.sources())
		time.Sleep(time.Minute)
		if got := s.count(); got != 0 {
			t.Fatalf("nobody looks, and it was gathered %d times", got)
		}
		first := look(t, sh)
		synctest.Wait()
		pages := []*viewer{first}
		for range 9 {
			pages = append(pages, look(t, sh))
		}
		time.Sleep(20*time.Second + time.Millisecond)
		synctest.Wait()
		if got := s.count(); got != 11 {
			t.Errorf("ten pages in 20 s: gathered %d times, want 11", got)
		}
		s.change()
		time.Sleep(soonest)
		synctest.Wait()
		if got := s.count(); got != 12 {
			t.Errorf("after a change: gathered %d times, want 12", got)
		}
		for range 100 {
			s.change()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if got := s.count(); got > 18 {
			t.Errorf("100 changes in a second: gathered %d times more, want 6 at most", got-12)
		}
		for _, p := range pages {
			p.close()
		}
		last := s.count()
		for i, p := range pages {
			if !strings.HasSuffix(p.Body.String(), fmt.Sprintf("event: cluster\ndata: %d\n\n", last)) {
				t.Errorf("page %d did not get the last document %d: ...%q", i, last, p.Body.String()[max(0, p.Body.Len()-60):])
			}
		}
		time.Sleep(time.Minute)
		if got := s.count(); got != last {
			t.Errorf("all pages are closed, and it was gathered %d times more", got-last)
		}
	})
}

// Who gathers may leave: the others do not get what was left of it.
func TestGathererLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &teller{takes: time.Second}
		sh := newShare(s.sources())
		a := look(t, sh)
		time.Sleep(500 * time.Millisecond)
		b := look(t, sh)
		synctest.Wait()
		a.close()
		time.Sleep(1100 * time.Millisecond)
		b.close()
		if a.Body.Len() != 0 || !strings.HasSuffix(b.Body.String(), "data: 2\n\n") {
			t.Errorf("got %q and %q", a.Body, b.Body)
		}
	})
}

func TestTooManyPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := newShare((&teller{}).sources())
		var pages []*viewer
		for range viewers {
			pages = append(pages, look(t, sh))
		}
		synctest.Wait()
		more := httptest.NewRecorder()
		sh.events(more, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/events", nil))
		if more.Code != http.StatusServiceUnavailable {
			t.Errorf("one page more: got %d", more.Code)
		}
		for _, p := range pages {
			p.close()
		}
		again := look(t, sh)
		synctest.Wait()
		again.close()
		if again.Code != http.StatusOK {
			t.Errorf("after they were closed: got %d", again.Code)
		}
	})
}
