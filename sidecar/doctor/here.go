package doctor

import (
	"cmp"
	"fmt"
)

// Checks of the machine that doctor runs on.

func configuration(f Facts) []Finding {
	if f.ConfigurationErr != "" {
		return one(broken(f.ConfigurationHint, "%s", f.ConfigurationErr))
	}
	s := "cluster " + f.Scope
	if f.Member != "" {
		s += ", member " + f.Member
	}
	switch {
	case f.ConfigFile != "" && f.PatroniConfig != "":
		s += fmt.Sprintf(", by %s and %s", f.ConfigFile, f.PatroniConfig)
	case f.ConfigFile+f.PatroniConfig != "":
		s += ", by " + f.ConfigFile + f.PatroniConfig
	}
	return one(ok("%s", s))
}

// local gives the finding of a check of this machine, or says that this is none of a member.
func (f Facts) local(check func(Local) Finding) []Finding {
	if f.Local == nil {
		return one(unexamined("not on a member: %s", f.NotLocal))
	}
	return one(check(*f.Local))
}

func dataDirectory(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		if l.DataErr != "" {
			return broken(asOwner(l, "walbaton doctor and walbaton sidecar must be able to read it"), "%s: %s", l.DataDir, l.DataErr)
		}
		return ok("%s, readable, system identifier %d", l.DataDir, l.SystemID)
	})
}

func walDirectory(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		if l.WALErr != "" {
			return broken(asOwner(l, "the sidecar reads pg_wal, and renames status files in archive_status"), "%s", l.WALErr)
		}
		return ok("pg_wal can be read, and archive_status written to")
	})
}

func asOwner(l Local, why string) string {
	if l.OwnerIs == "" {
		return why + ": run them as the user that runs PostgreSQL"
	}
	return fmt.Sprintf("%s: run them as %s, or as root", why, l.OwnerIs)
}

func sameUser(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		fix := fmt.Sprintf("run the sidecar as %s: User=%s in its systemd unit, runAsUser in Kubernetes", l.OwnerIs, l.OwnerIs)
		switch {
		case l.Owner < 0:
			return warning("see what the data directory says above", "nobody knows to whom the data directory belongs")
		case l.SidecarUID >= 0 && l.SidecarUID != l.Owner:
			return broken(fix, "the sidecar runs as %s, and the data directory belongs to %s", l.SidecarIs, l.OwnerIs)
		case l.SidecarUID >= 0:
			return ok("the sidecar and the data directory are both %s's", l.OwnerIs)
		case l.SocketShut:
			return warning(fmt.Sprintf("ask again as %s, or as root", l.OwnerIs), "as whom a sidecar runs here %s cannot see; the data directory belongs to %s", f.User, l.OwnerIs)
		case f.UID != l.Owner:
			return warning(fmt.Sprintf("ask again as %s, as whom the sidecar is to run", l.OwnerIs), "this is %s, the data directory belongs to %s, and no sidecar runs here", f.User, l.OwnerIs)
		}
		return ok("%s, to whom the data directory belongs (no sidecar runs here)", f.User)
	})
}

func socket(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		switch {
		case l.SocketShut:
			return warning("ask again as the user that runs PostgreSQL, or as root", "%s is closed to %s, so whether a sidecar answers there is not known", l.Socket, f.User)
		case l.SocketErr != "":
			return broken("start the sidecar, or let both use the same path (--socket, here and in archive_command):"+f.start(f.Member),
				"%s: %s; PostgreSQL keeps its WAL until a sidecar answers", l.Socket, l.SocketErr)
		}
		return ok("%s answers", l.Socket)
	})
}

func client(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		switch {
		case l.Apart:
			return unexamined("PostgreSQL runs in another container, which has its own")
		case l.Client == "":
			return unexamined("archive_command names no path of it that could be looked at")
		case l.ClientErr != "":
			return broken("install walbaton and walbaton-wal into one folder, and give that path in archive_command", "%s: %s", l.Client, l.ClientErr)
		case l.ClientIs != f.Version:
			return warning("install both programs of one version into the same folder", "%s is version %s, and this walbaton %s", l.Client, l.ClientIs, f.Version)
		}
		return ok("%s, %s", l.Client, l.ClientIs)
	})
}

func keepDir(f Facts) []Finding {
	return f.local(func(l Local) Finding {
		if l.KeepErr != "" {
			return broken(fmt.Sprintf("make it for the user of PostgreSQL, beside the data directory:\n  install -d -o %s -m 700 %s", cmp.Or(l.OwnerIs, "postgres"), l.KeepDir), "%s: %s", l.KeepDir, l.KeepErr)
		}
		return ok("%s can be written to, or made", l.KeepDir)
	})
}
