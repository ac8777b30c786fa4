package kubernetes

import (
	"sync"
	"time"
)

// seen remembers for each object that somebody must keep renewing since when it has not changed,
// by our own clock. Go's time.Now has the monotonic clock in it.
type seen struct {
	mu sync.Mutex
	of map[string]sight
}

type sight struct {
	mark     string    // what a renewal changes
	since    time.Time // when we first saw this mark
	duration time.Duration
}

func sightKey(list int, name string) string { return string(rune('0'+list)) + name }

// look notes what has just been seen of an object and says whether it is alive: it has been
// renewed within its duration. A mark from an older answer than the last one lets it live longer,
// never shorter.
func (s *seen) look(key, mark string, duration time.Duration) bool {
	now := time.Now() // after the answer came: the server wrote it before
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.of[key]
	if !ok || was.mark != mark {
		was = sight{mark: mark, since: now}
	}
	was.duration = duration
	if s.of == nil {
		s.of = map[string]sight{}
	}
	s.of[key] = was
	return now.Before(was.since.Add(duration))
}

// end is when an object's duration is over; false for one that has not been seen.
func (s *seen) end(key string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.of[key]
	return was.since.Add(was.duration), ok
}

// keep forgets all objects but those of a reading. One that is forgotten too early, because it was
// made after that, lives longer for us.
func (s *seen) keep(present map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.of {
		if !present[key] {
			delete(s.of, key)
		}
	}
}
