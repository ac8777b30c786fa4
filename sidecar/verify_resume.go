package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/wal"
)

// resumeFile is what an interrupted `verify --deep --resume FILE` leaves: a line that says which run it is, and one for each block of segments
// that was good. It may be deleted at any time, and a line that was cut short costs one block. A run that comes to its end removes it.
type resumeFile struct {
	path  string
	f     *os.File
	begun time.Time

	mu    sync.Mutex
	known map[resumeBlock]uint64
	old   int // blocks of earlier runs
}

type resumeBlock struct {
	timeline wal.Timeline
	no       uint64
}

// resumeHead is the first line.
type resumeHead struct {
	Format  string    `json:"walbaton_verify"` // "1"
	Archive string    `json:"archive"`
	Begun   time.Time `json:"begun"`
}

// openResume opens the file of a run that was interrupted, or begins one. Another file is left alone.
func openResume(path, archive string, now time.Time) (*resumeFile, error) {
	r := &resumeFile{path: path, begun: now.UTC().Truncate(time.Second), known: map[resumeBlock]uint64{}}
	whole, err := r.read(archive)
	if err != nil {
		return nil, err
	}
	if r.f, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		return nil, withHint(fmt.Errorf("resume: %w", bare(err)), "give a file in a folder that is there and that you may write to")
	}
	if whole > 0 {
		if err = r.f.Truncate(whole); err == nil { // what a crash left half written
			return r, nil
		}
	} else if err = r.write(resumeHead{"1", archive, r.begun}); err == nil {
		return r, nil
	}
	return nil, errors.Join(fmt.Errorf("resume: %w", bare(err)), r.f.Close())
}

// read takes what is there, and gives how many bytes are whole lines: 0 without a file.
func (r *resumeFile) read(archive string) (whole int64, err error) {
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, withHint(fmt.Errorf("resume: %w", bare(err)), "give the name of a file that is yours, or of none")
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // the rest was cut short
		}
		if whole == 0 {
			var head resumeHead
			if json.Unmarshal(line, &head) != nil || head.Format != "1" {
				return 0, withHint(fmt.Errorf("resume: %s is no file of verify", r.path), "give another name; it was left as it is")
			}
			if head.Archive != archive {
				return 0, withHint(fmt.Errorf("resume: %s is of a run over %s", r.path, head.Archive), "give another name, or delete it")
			}
			r.begun = head.Begun
		} else {
			var b archiver.AuditBlock
			if json.Unmarshal(line, &b) != nil {
				break
			}
			r.known[resumeBlock{b.Timeline, b.No}] = b.Print
			r.old++
		}
		whole += int64(len(line))
	}
	if info, err := f.Stat(); whole == 0 && (err != nil || info.Size() > 0) {
		return 0, withHint(fmt.Errorf("resume: %s is no file of verify", r.path), "give another name; it was left as it is")
	}
	return whole, nil
}

func (r *resumeFile) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = r.f.Write(append(b, '\n'))
	return err
}

// Known implements archiver.AuditMemory.
func (r *resumeFile) Known(b archiver.AuditBlock) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	print, ok := r.known[resumeBlock{b.Timeline, b.No}]
	return ok && print == b.Print
}

// Good implements archiver.AuditMemory.
func (r *resumeFile) Good(b archiver.AuditBlock) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[resumeBlock{b.Timeline, b.No}] = b.Print
	if err := r.write(b); err != nil {
		return fmt.Errorf("resume: %w", bare(err))
	}
	return nil
}

// end closes the file, and removes it when the run is over.
func (r *resumeFile) end(over bool) error {
	err := r.f.Close()
	if over {
		err = errors.Join(err, os.Remove(r.path))
	}
	return err
}
