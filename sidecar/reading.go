package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
)

// readingSettings are what the verbs take that need nothing but the archive.
func readingSettings(more ...string) []string {
	return append([]string{"archive.url", "scope", "identities", "patroni_config"}, more...)
}

// openSource opens the store of a URL that may end in #scope, as those of restore_from do for a clone's origin.
func openSource(ctx context.Context, rawURL string, cfg Config, b store.Backoff) (archiver.Source, error) {
	scope := cfg.Scope
	if i := strings.LastIndexByte(rawURL, '#'); i >= 0 {
		rawURL, scope = rawURL[:i], rawURL[i+1:]
		if !isElement(scope) {
			return archiver.Source{}, withHint(withCode(exitUsage, fmt.Errorf("open archive %s#%s: %q cannot be the name of a cluster", rawURL, scope, scope)), "an address that ends in #scope is that of another cluster's archive; leave # and what follows it out for this one's")
		}
	}
	s, err := openDriver(ctx, rawURL, cfg.Archive)
	if err != nil {
		return archiver.Source{}, withCode(exitUsage, err)
	}
	keys, err := cfg.keys()
	if err != nil {
		return archiver.Source{}, err
	}
	return archiver.Source{Store: store.Retry(store.Stall(s, cfg.StallTimeout), b), Scope: scope, Keys: keys}, nil
}

// openArchive opens the archive that a verb looks at: that of the system identifier if one is given (0 is none), that of
// the local data directory, or the only one there is.
func openArchive(ctx context.Context, cfg Config, systemID uint64, log *slog.Logger) (*archiver.Archive, error) {
	if err := cfg.needArchive(); err != nil {
		return nil, err
	}
	src, err := openSource(ctx, cfg.Archive.URL, cfg, store.Backoff{Log: log})
	if err != nil {
		return nil, err
	}
	if systemID == 0 {
		if c, err := controlOf(cfg.Postgres.DataDir); err == nil {
			systemID = c.SystemID
		}
	}
	if systemID == 0 {
		if systemID, err = onlyArchive(ctx, src); err != nil {
			return nil, err
		}
	}
	cfg.warnOfOpenKeys(log)
	a, err := archiver.OpenArchive(ctx, src.Store, src.Scope, systemID, src.Keys...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("open %s: there is no archive of system identifier %d", src, systemID), noArchiveHint)
	}
	return a, unreadable(src, err)
}

// unreadable says what to do about an archive that cannot be read.
func unreadable(src archiver.Source, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoRoot):
		return withHint(errors.New(archiver.Reason(src.Store, err)), noRootHint)
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "run this as the user that runs PostgreSQL, or give the credentials of one who may read the archive")
	case errors.Is(err, archiver.ErrFormat):
		return withHint(err, "another program or another version wrote it: check --archive and --scope, and the version with walbaton version")
	}
	return withHint(err, "see that the archive can be reached, and that --archive is right; then try again")
}

const noRootHint = "mount it, or give its right name with --archive; walbaton never creates the folder or bucket of an archive"

const noArchiveHint = "check --archive and --scope; Patroni's leader begins the archive when its sidecar starts"

// onlyArchive finds the system identifier where nothing says it.
func onlyArchive(ctx context.Context, src archiver.Source) (uint64, error) {
	ids, err := archiver.FindArchives(ctx, src)
	switch {
	case err != nil:
		return 0, unreadable(src, err)
	case len(ids) == 1:
		return ids[0], nil
	case len(ids) == 0:
		return 0, withHint(fmt.Errorf("open %s: there is no archive", src), noArchiveHint)
	}
	return 0, withHint(withCode(exitUsage, fmt.Errorf("open %s: it has archives of %d clusters: %s", src, len(ids), identifiers(ids))),
		"choose one with --system-identifier")
}

// identifiers writes system identifiers as a list.
func identifiers(ids []uint64) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = strconv.FormatUint(id, 10)
	}
	return strings.Join(words, ", ")
}

// controlOf reads pg_control of a data directory; "" has none.
func controlOf(dataDir string) (wal.Control, error) {
	if dataDir == "" {
		return wal.Control{}, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(dataDir, "global", "pg_control"))
	if err != nil {
		return wal.Control{}, err
	}
	defer f.Close()
	return wal.ReadControl(f)
}

// sizeText writes bytes as people read them, in PostgreSQL's units.
func sizeText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	if i == 0 || x >= 100 {
		return fmt.Sprintf("%.0f %s", x, units[i])
	}
	return fmt.Sprintf("%.1f %s", x, units[i])
}

// counted writes "1 segment", "2 segments".
func counted(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y") && !strings.HasSuffix(noun, "day"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
