package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/walbaton/walbaton/archiver"
	"github.com/walbaton/walbaton/archiver/seal"
	"github.com/walbaton/walbaton/archiver/store"
	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/sidecar/doctor"
)

// examineArchive looks at one archive of the cluster with this system identifier; 0: whose that is nobody says.
func examineArchive(ctx context.Context, cfg Config, one ArchiveConfig, systemID uint64) doctor.Archive {
	a := doctor.Archive{Name: one.Name, Required: one.Required, URL: one.URL, Proof: doctor.NotTried}
	ctx, cancel := context.WithTimeout(ctx, archiveTime)
	defer cancel()
	src, err := openSource(ctx, one.URL, cfg, store.Backoff{Tries: 2})
	if err != nil {
		a.URL = redacted(one.URL)
		a.Err, a.Hint = err.Error(), hintOf(err)
		return a
	}
	src.Store = store.Stall(src.Store, probeTime)
	a.URL = src.Store.String()
	ids, err := archiver.FindArchives(ctx, src)
	if err != nil {
		a.Err, a.Hint = archiver.Reason(src.Store, err), hintOf(unreadable(src, err))
		return a
	}
	if systemID == 0 && len(ids) == 1 {
		systemID = ids[0]
	}
	size := lookIntoArchive(ctx, &a, src, systemID)
	a.Others = slices.DeleteFunc(ids, func(id uint64) bool { return id == systemID })
	proveArchive(ctx, &a, src, cfg, size)
	return a
}

func hintOf(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// redacted leaves out of a URL that cannot be opened what may be a secret.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the archive"
	}
	u.RawQuery = ""
	return u.Redacted()
}

// lookIntoArchive reads whose it is and what histories it has, and gives the size of its segments; 0 unknown.
func lookIntoArchive(ctx context.Context, a *doctor.Archive, src archiver.Source, systemID uint64) wal.SegmentSize {
	opened, err := archiver.OpenArchive(ctx, src.Store, src.Scope, systemID, src.Keys...)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		a.IdentityErr = archiver.Reason(src.Store, err)
		return 0
	}
	id := opened.Identity()
	a.Begun, a.SystemID, a.FirstFloor = true, id.SystemID, uint32(id.Floor.Timeline)
	for h, err := range opened.Histories(ctx) {
		if err != nil {
			a.IdentityErr = archiver.Reason(src.Store, err)
			break
		}
		a.Histories = append(a.Histories, uint32(h.Name.Segment.Timeline))
	}
	return id.SegmentSize
}

// proveArchive shows put-if-absent, and asks for the store's time, by writing below <scope>/probe/, as the sidecar does.
func proveArchive(ctx context.Context, a *doctor.Archive, src archiver.Source, cfg Config, size wal.SegmentSize) {
	if owner, isFolder := folderOwner(src.Store.String()); isFolder && os.Geteuid() == 0 && owner != 0 {
		a.ProofErr = fmt.Sprintf("this is root, and the folder belongs to %s", userNameOf(owner))
		return
	}
	who := cfg.Name
	if who == "" {
		who, _ = os.Hostname() // any name will do
	}
	prefix := path.Join(src.Scope, "probe", who)
	if err := askTime(ctx, a, src.Store, prefix); errors.Is(err, fs.ErrPermission) {
		a.Proof, a.Refused, a.ProofErr = doctor.NoProof, true, err.Error()
		return
	}
	size = max(size, 1<<20)
	switch err := store.Prove(ctx, src.Store, prefix, int64(size)+int64(size)/8+seal.HeaderRange); {
	case err == nil:
		a.Proof = doctor.Proven
	case errors.Is(err, store.ErrNotExclusive):
		a.Proof, a.ProofErr = doctor.Refuted, err.Error()
	default:
		a.Proof, a.ProofErr, a.Refused = doctor.NoProof, steady(err).Error(), errors.Is(err, fs.ErrPermission)
	}
}

// folderOwner is the user of an archive's folder.
func folderOwner(name string) (uid int, is bool) {
	dir, is := strings.CutPrefix(name, "file://")
	var st syscall.Stat_t
	if !is || syscall.Stat(dir, &st) != nil {
		return 0, false
	}
	return int(st.Uid), true
}

// askTime puts an object and asks when that was, by the store's clock. Stores tell whole seconds.
func askTime(ctx context.Context, a *doctor.Archive, s store.Store, prefix string) error {
	key := path.Join(prefix, "time", rand.Text())
	begin := time.Now()
	if err := s.Put(ctx, key, bytes.NewReader([]byte("walbaton probe\n"))); err != nil {
		return err
	}
	took := time.Since(begin)
	info, err := s.Head(ctx, key)
	_ = s.Delete(context.WithoutCancel(ctx), key) // one that stays is no harm
	if err == nil && !info.Modified.IsZero() {
		a.Offset, a.Exact = info.Modified.Sub(begin.Add(took/2)), took/2+time.Second
	}
	return err
}
