package doctor

import (
	"cmp"
	"fmt"
)

// Checks of the sidecars.

// alive says that the node's sidecar is there: by its record in the DCS, which is bound to a lease, or by its own answer.
func (n Node) alive() bool { return n.Sidecar.Live || n.answers() }

// answers says that the sidecar's page was read.
func (n Node) answers() bool { return n.Sidecar.Err == "" && n.Sidecar.Version != "" }

func sidecarsLive(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		start := "start it there, as the user that runs PostgreSQL:" + f.start(n.Name)
		switch {
		case f.Static && !n.alive():
			all = append(all, broken(start, "none answers").on(n.Name))
		case !n.alive() && (f.REST || f.DCS.Err != ""): // only the page could tell
			all = append(all, warning("see that it runs, and that this machine reaches it; or ask on the node itself", "that of %s does not answer here: %s", nodesHere, n.Sidecar.Err).on(n.Name))
		case !n.alive():
			all = append(all, broken(start, "none is alive beside %s: nobody ships what only that node has, and with archive_mode = always its disk fills", nodesHere).on(n.Name))
		case n.Sidecar.Live && n.Sidecar.Err != "":
			all = append(all, warning("let this machine reach it, or ask on the node itself", "alive beside %s, but its page does not answer here: %s", nodesHere, n.Sidecar.Err).on(n.Name))
		case !n.Sidecar.Live && !f.REST && !f.Static && f.DCS.Err == "":
			all = append(all, broken("see what its DCS line says, and its log:"+f.log(n.Name), "that of %s answers, and has no record in the DCS: the others do not know it", nodesHere).on(n.Name))
		default:
			all = append(all, ok("alive beside %s", nodesHere).on(n.Name))
		}
	}
	return orNobody(alike(all))
}

// start is what to type to start the sidecar of a node, or, where its Pod does that, to see why it does not.
func (f Facts) start(node string) string {
	if f.Pods {
		return f.log(node)
	}
	return "\n  systemctl start walbaton"
}

// log is what to type to read what the sidecar of a node logs.
func (f Facts) log(node string) string {
	if f.Pods {
		return fmt.Sprintf("\n  kubectl logs %s -c walbaton", cmp.Or(node, "POD"))
	}
	return "\n  journalctl -u walbaton"
}

func sidecarVersions(f Facts) []Finding {
	var all []Finding
	seen := map[string][]string{}
	var order []string
	for _, n := range f.Nodes {
		if !n.alive() {
			continue
		}
		if n.Sidecar.Live && !n.Sidecar.Readable {
			all = append(all, broken("bring all sidecars to the same version (docs/operations.md)", "the record of %s has version %d, which this walbaton %s does not understand", nodesHere, n.Sidecar.Record, f.Version).on(n.Name))
			continue
		}
		v := cmp.Or(n.Sidecar.Version, "(unknown)")
		if seen[v] == nil {
			order = append(order, v)
		}
		seen[v] = append(seen[v], n.Name)
	}
	switch {
	case len(order) == 0 && len(all) == 0:
		return one(unexamined("no sidecar is alive"))
	case len(order) > 1:
		for _, v := range order {
			all = append(all, warning("fine while an upgrade is under way; then bring all to the same version", "%s %s %s", list(seen[v]), verb(seen[v], "has", "have"), v).on(seen[v]...))
		}
	case len(order) == 1 && order[0] != f.Version:
		all = append(all, warning("use the walbaton that the sidecars run", "all sidecars have %s, and this is %s", order[0], f.Version).on(seen[order[0]]...))
	case len(order) == 1:
		all = append(all, ok("all have %s", order[0]))
	}
	return alike(all)
}

func sidecarsReady(f Facts) []Finding {
	var all []Finding
	for _, n := range f.Nodes {
		switch {
		case !n.answers():
		case !n.Sidecar.Ready:
			all = append(all, broken("see that line's own check here; the sidecar goes on by itself when it is mended", "%s would not answer a push well: %s", nodesHere, n.Sidecar.Why).on(n.Name))
		default:
			all = append(all, ok("ready on %s", nodesHere).on(n.Name))
		}
		if n.Sidecar.Retention != "" {
			all = append(all, warning("walbaton expire says more, and what it would delete", "retention expires nothing: %s", n.Sidecar.Retention).on(n.Name))
		}
	}
	if len(all) == 0 {
		return one(unexamined("no sidecar's page answers here"))
	}
	return alike(all)
}

func baton(f Facts) []Finding {
	switch {
	case f.Static || f.REST:
		return one(unexamined("there is none: the running primary ships"))
	case f.DCS.Err != "":
		return one(unexamined("the DCS does not answer here"))
	case f.DCS.Holder == "" && f.live() == 0:
		return one(broken("start the sidecars", "nobody holds it, for no sidecar is alive: nothing is shipped"))
	case f.DCS.Holder == "":
		return one(broken("see why nobody takes it: walbaton status on any node", "nobody holds it: nothing is shipped"))
	}
	return one(ok("%s holds it", f.DCS.Holder).on(f.DCS.Holder))
}

func tags(f Facts) []Finding {
	if f.Static || f.REST {
		return one(unexamined("they choose who has the baton, and there is none"))
	}
	var all []Finding
	for _, n := range f.Nodes {
		switch n.Tag {
		case "", "designated":
		case "never":
			all = append(all, warning("take the tag out of its patroni.yml unless you mean it", "%s has the tag walbaton: never: what only it has waits until another node has it too, and goes with its disk", n.Name).on(n.Name))
		default:
			all = append(all, warning("it is designated or never", "%s has the tag walbaton: %s, which means nothing", n.Name, n.Tag).on(n.Name))
		}
	}
	if len(all) == 0 {
		return one(ok("none keeps a node from shipping"))
	}
	return all
}

func alarms(f Facts) []Finding {
	const most = 3
	var all []Finding
	asked := false
	for _, n := range f.Nodes {
		asked = asked || n.answers()
		for i, a := range n.Sidecar.Alarms {
			if i == most {
				all = append(all, broken("walbaton status names them all", "%s has %d more", n.Name, len(n.Sidecar.Alarms)-most).on(n.Name))
				break
			}
			all = append(all, broken(fmt.Sprintf("on %s:\n  walbaton explain %s", n.Name, a.Name), "%s of %s needs a person: %s", a.Name, n.Name, a.Why).on(n.Name))
		}
	}
	if !asked {
		return one(unexamined("no sidecar's page answers here"))
	}
	if len(all) == 0 {
		return one(ok("no file needs a person"))
	}
	return all
}
