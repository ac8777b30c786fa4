package archiver

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrNoZone means that a time does not say in which zone it is.
var ErrNoZone = errors.New("it has no time zone")

// ErrZoneName means that a time names its zone by letters that can be several ones (IST, CST).
var ErrZoneName = errors.New("the name of its zone can be several ones: write it as a number, such as +02")

// ParseTime reads a time as PostgreSQL writes it (2026-11-28 19:24:47.5+00) or RFC 3339. One without a zone is ErrNoZone: PostgreSQL reads
// recovery_target_time by its own setting TimeZone, and this machine may have another one. A zone's name is
// believed when it is UTC or GMT, and otherwise ErrZoneName.
func ParseTime(s string) (time.Time, error) {
	text := strings.Join(strings.Fields(s), " ")
	for _, zone := range []string{" UTC", " GMT", "UTC", "GMT", "Z", "z"} {
		if before, ok := strings.CutSuffix(text, zone); ok {
			text = before + "+00"
			break
		}
	}
	if i := strings.LastIndexAny(text, " "); i > 0 && i+1 < len(text) && strings.ContainsRune("+-", rune(text[i+1])) {
		text = text[:i] + text[i+1:] // a blank before the zone
	}
	for _, day := range []string{"2006-01-02 ", "2006-01-02T", "2006-01-02t"} {
		for _, clock := range []string{"15:04:05", "15:04"} {
			for _, zone := range []string{"-07", "-0700", "-07:00"} {
				if t, err := time.Parse(day+clock+zone, text); err == nil {
					return t.UTC(), nil
				}
			}
			if _, err := time.Parse(day+clock, text); err == nil {
				return time.Time{}, fmt.Errorf("read %q: %w", s, ErrNoZone)
			}
			if _, err := time.Parse(day+clock+" MST", text); err == nil {
				return time.Time{}, fmt.Errorf("read %q: %w", s, ErrZoneName)
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", s)
}
