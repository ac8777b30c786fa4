package doctor

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Checks of the archives.

// each looks at every archive; with several the text begins with the name.
func (f Facts) each(look func(Archive) Finding) []Finding {
	var all []Finding
	for _, a := range f.Archives {
		found := look(a)
		if a.Name != "" {
			found.Text = a.Name + ": " + found.Text
			if found.Level == Broken && !a.Required {
				found.Level = Warning
				found.Text += " (it is not required)"
			}
		}
		all = append(all, found)
	}
	if len(all) == 0 {
		return one(unexamined("no archive is configured"))
	}
	return all
}

func storeAnswers(f Facts) []Finding {
	if len(f.Archives) == 0 {
		return one(broken("give --archive, or write to /etc/walbaton/walbaton.yml:\n  archive: {url: s3://bucket/prefix}", "no archive is configured"))
	}
	all := f.each(func(a Archive) Finding {
		if a.Err != "" {
			return broken(cmp.Or(a.Hint, "see that it can be reached; until then every node keeps its WAL"), "%s: %s", a.URL, strings.TrimPrefix(a.Err, a.URL+" "))
		}
		return ok("%s answers", a.URL)
	})
	for _, n := range f.Nodes {
		if n.answers() && n.Sidecar.Open && !n.Sidecar.Store {
			all = append(all, broken("see that this node reaches it, with its own credentials", "it does not answer the sidecar of %s", n.Name).on(n.Name))
		}
	}
	return all
}

func putIfAbsent(f Facts) []Finding {
	bySidecar := ""
	for _, n := range f.Nodes {
		if n.Sidecar.Open {
			bySidecar = n.Name // it opens no archive without the proof
		}
	}
	return f.each(func(a Archive) Finding {
		switch {
		case a.Err != "":
			return unexamined("the store does not answer")
		case a.Proof == Proven:
			return ok("proven: of four writers of one key exactly one wins, and a late one loses")
		case a.Proof == Refuted:
			return broken("use a server that honours If-None-Match, or a file system with hard links (docs/stores.md)", "%s", a.ProofErr)
		case bySidecar != "" && (a.Refused || a.Proof == NotTried):
			return ok("not tried from here (%s); the sidecar of %s has proven it", a.ProofErr, bySidecar)
		case a.Proof == NotTried:
			return warning("ask as the user that runs PostgreSQL", "not tried: %s", a.ProofErr)
		case a.Refused:
			return broken("let these credentials write (docs/stores.md has each permission)", "%s", a.ProofErr)
		}
		return broken("see that the store can be reached and written to, and ask again", "it could not be shown: %s", a.ProofErr)
	})
}

func archiveIdentity(f Facts) []Finding {
	return f.each(func(a Archive) Finding {
		switch {
		case a.Err != "":
			return unexamined("the store does not answer")
		case a.IdentityErr != "":
			return broken("check --archive and --scope, and the version: another program or another version wrote it", "%s", a.IdentityErr)
		case !a.Begun && f.live() > 0:
			return warning("Patroni's leader begins it when its sidecar runs and the store can be written to: see the lines above", "cluster %s has none there yet", f.Scope)
		case !a.Begun:
			return warning("start the sidecars: that of Patroni's leader begins it", "cluster %s has none there yet", f.Scope)
		case len(a.Others) > 0:
			return ok("of system identifier %d; %s beside it, of former clusters of that name", a.SystemID, counted(len(a.Others), "other one"))
		}
		return ok("of system identifier %d", a.SystemID)
	})
}

// storeClock compares the store with the nodes, or with this machine where none told the time.
func storeClock(f Facts) []Finding {
	return f.each(func(a Archive) Finding {
		if a.Err != "" || a.Exact == 0 {
			return unexamined("it did not tell the time")
		}
		who, offset, exact := "this machine", time.Duration(0), time.Duration(0)
		if all := f.clocks(); len(all) > 0 {
			who, offset, exact = all[0].who, all[0].offset, all[0].exact
		}
		apart := (a.Offset - offset).Abs()
		const fix = "let the store and the nodes follow the same time: timedatectl status"
		switch sure := apart - exact - a.Exact; {
		case sure > skewBreaks:
			return broken(fix, "it is %s from that of %s: stores refuse requests that are a quarter of an hour off", spanText(apart), who)
		case sure > skewWarns:
			return warning(fix, "it is %s from that of %s", spanText(apart), who)
		}
		return ok("it agrees with that of %s", who)
	})
}

func historyFiles(f Facts) []Finding {
	return f.each(func(a Archive) Finding {
		switch {
		case a.Err != "" || !a.Begun:
			return unexamined("there is no archive that could be looked at")
		case f.DCS.Timeline == 0:
			return unexamined("nobody says which timeline the cluster is on")
		}
		has := map[uint32]bool{}
		for _, t := range a.Histories {
			has[t] = true
		}
		var missing []string
		for t := a.FirstFloor + 1; t <= f.DCS.Timeline && len(missing) < 10; t++ {
			if !has[t] {
				missing = append(missing, fmt.Sprintf("%08X.history", t))
			}
		}
		if len(missing) > 0 {
			return broken(fmt.Sprintf("any node that has it in pg_wal ships it by itself while its sidecar runs. If none does:\n  walbaton explain %s", missing[0]),
				"%s %s missing: no recovery gets beyond that timeline", list(missing), verb(missing, "is", "are"))
		}
		if f.DCS.Timeline <= a.FirstFloor {
			return ok("timeline %d needs none", f.DCS.Timeline)
		}
		return ok("all of them, up to timeline %d", f.DCS.Timeline)
	})
}

func holes(f Facts) []Finding {
	const fix = "walbaton verify says more, and what to type about each"
	var all []Finding
	for _, n := range f.Nodes {
		v := n.Sidecar.Verify
		if v == nil {
			continue
		}
		for _, p := range v.Problems {
			all = append(all, broken(fix, "%s", p))
		}
		switch {
		case v.More > 0:
			all = append(all, broken(fix, "%d more", v.More))
		case v.Failed != "":
			all = append(all, warning("see that the store answers; the sidecar looks again by itself", "%s could not look: %s", n.Name, v.Failed))
		case v.At.IsZero():
			all = append(all, unexamined("%s holds the baton and looks half a minute after its term begins, then every hour", n.Name))
		case len(v.Problems) == 0 && v.Acknowledged > 0:
			all = append(all, ok("none but %s, as %s found %s ago", counted(v.Acknowledged, "acknowledged one"), n.Name, spanText(f.Now.Sub(v.At).Abs())))
		case len(v.Problems) == 0:
			all = append(all, ok("none, as %s found %s ago", n.Name, spanText(f.Now.Sub(v.At).Abs().Round(time.Second))))
		}
	}
	if len(all) == 0 {
		return one(unexamined("the sidecar that holds the baton looks for them, and did not tell; walbaton verify looks now"))
	}
	return all
}

func restorable(f Facts) []Finding {
	for _, n := range f.Nodes {
		if n.Sidecar.Window != "" {
			return one(ok("%s", n.Sidecar.Window))
		}
	}
	return one(unexamined("not known yet: the holder of the baton looks half a minute after its term begins"))
}
