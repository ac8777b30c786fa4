#!/usr/bin/env python3
"""Capture what a real Patroni writes below its scope.

    capture.py <Patroni checkout> <output folder> [<older checkout>]

runs etcd, Patroni and PostgreSQL on loopback, brings three nodes into one situation after
the other, and writes each as <output folder>/<situation>.json: the keys below the scope with
etcd's create and mod revisions. With an older checkout it captures an upgrade from that
one instead, in two situations.

It needs etcd 3.4 or later and PostgreSQL's programs in PATH, the modules that Patroni needs,
a user that is not root, and the ports below; a network namespace of its own has them free:

    unshare -n sh -c 'ip link set lo up && exec setpriv --reuid=postgres --regid=postgres \\
        --init-groups env PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin HOME=/ LC_ALL=C.UTF-8 \\
        python3 -B capture.py ...'

The nodes are n1, n2 and n3; n3 never takes over. etcd keeps every revision, so a moment
like "nobody leads" is read afterwards: it is the revision before the next leader's.
"""
import base64
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

SCOPE = "/service/lab/"
ETCD, PEER = "http://127.0.0.1:25379", "http://127.0.0.1:25380"
TAGS = {"n1": {}, "n2": {"failover_priority": 2}, "n3": {"nofailover": True, "walbaton": "designated", "weight": 3}}


def port(node, base):
    return base + int(node[1:])


def config(node, folder):
    address = "127.0.0.1:%d"
    return {
        "scope": "lab", "name": node, "tags": TAGS[node],
        "etcd3": {"hosts": ETCD.removeprefix("http://")},
        "restapi": {"listen": address % port(node, 28040), "connect_address": address % port(node, 28040)},
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 9, "postgresql": {
                "use_pg_rewind": True, "use_slots": True,
                "parameters": {"wal_log_hints": "on", "max_connections": 60, "fsync": "off"}}},
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
        },
        "postgresql": {
            "listen": address % port(node, 25540), "connect_address": address % port(node, 25540),
            "proxy_address": address % port(node, 26540), "data_dir": folder + "/data", "pgpass": folder + "/pgpass",
            "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
            "authentication": {u: {"username": u, "password": u} for u in ("superuser", "replication", "rewind")},
            "parameters": {"unix_socket_directories": folder, "shared_buffers": "16MB", "max_wal_size": "64MB"},
        },
    }


def ask(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as r:
        return r.read()


def wait(what, condition, seconds=120):
    end = time.monotonic() + seconds
    while True:
        try:
            if answer := condition():
                return answer
        except (OSError, KeyError):
            pass
        if time.monotonic() > end:
            raise SystemExit("no %s after %d s" % (what, seconds))
        time.sleep(0.1)


def keys(revision=0):
    """Every key of the scope, now or at a revision of etcd."""
    b64 = lambda s: base64.b64encode(s.encode()).decode()
    text = lambda s: base64.b64decode(s).decode()
    body = {"key": b64(SCOPE), "range_end": b64(SCOPE[:-1] + "0"), "revision": revision}
    return {text(kv["key"]).removeprefix(SCOPE): {
        "create": int(kv["create_revision"]), "mod": int(kv["mod_revision"]), "value": text(kv.get("value", "")),
    } for kv in json.loads(ask(ETCD + "/v3/kv/range", body)).get("kvs", [])}


def value(dump, key):
    return json.loads(dump[key]["value"]) if key in dump else {}


def members(dump):
    return {k.removeprefix("members/"): value(dump, k) for k in dump if k.startswith("members/")}


class Lab:
    def __init__(self, checkouts, out):
        self.checkouts, self.out, self.running = checkouts, out, {}
        self.folder = tempfile.mkdtemp(prefix="capture-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.etcd = self.spawn("etcd", "etcd", "--data-dir", self.folder + "/etcd", "--listen-client-urls", ETCD,
                               "--advertise-client-urls", ETCD, "--listen-peer-urls", PEER,
                               "--initial-advertise-peer-urls", PEER, "--initial-cluster", "default=" + PEER)

    def spawn(self, name, *command):
        with open(self.folder + "/" + name + ".log", "a") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)

    def start(self, *nodes):
        for node in nodes:
            folder = self.folder + "/" + node
            os.makedirs(folder, exist_ok=True)
            with open(folder + "/patroni.yml", "w") as f:
                json.dump(config(node, folder), f)  # JSON is YAML
            self.running[node] = self.spawn(node, sys.executable, self.checkouts[node] + "/patroni.py", folder + "/patroni.yml")

    def postmaster(self, node):
        try:
            with open(self.folder + "/" + node + "/data/postmaster.pid") as f:
                return int(f.readline())
        except FileNotFoundError:
            return None

    def kill(self, node):
        """As if the machine were lost; the children of a postmaster follow it."""
        pid = self.postmaster(node)
        self.running[node].kill()
        os.kill(pid, signal.SIGKILL)
        self.running.pop(node).wait()

    def stop(self, node):
        self.running[node].terminate()
        self.running.pop(node).wait(120)

    def close(self):
        for node in list(self.running):
            pid = self.postmaster(node)
            self.running[node].kill()
            self.running.pop(node).wait()
            if pid:
                os.kill(pid, signal.SIGQUIT)
                wait("end of PostgreSQL", lambda: self.postmaster(node) is None)
        self.etcd.terminate()
        self.etcd.wait()
        shutil.rmtree(self.folder)

    def save(self, situation, dump):
        lines = ("  %s: %s" % (json.dumps(k), json.dumps(dump[k])) for k in sorted(dump))
        with open("%s/%s.json" % (self.out, situation), "w") as f:
            f.write("{\n" + ",\n".join(lines) + "\n}\n")
        print(time.strftime("%H:%M:%S"), situation, flush=True)

    def settled(self, leader, condition=lambda dump: True):
        """The keys once the condition holds, the running nodes agree, and nothing moved for some loops."""
        seen = [{}, 0.0]

        def calm():
            dump = keys()
            values = {k: v["value"] for k, v in dump.items()}  # 2.1 writes the same status again and again
            if values != seen[0]:
                seen[:] = values, time.monotonic()
            m = members(dump)
            good = dump["leader"]["value"] == leader and set(self.running) <= set(m) and condition(dump)
            at = {(m[n]["state"], m[n].get("timeline"), m[n].get("xlog_location")) for n in self.running} if good else ()
            return dump if len(at) == 1 and time.monotonic() - seen[1] > 5 else None
        return wait("calm under " + leader, calm)

    def patch(self, node, body):
        ask("http://127.0.0.1:%d/config" % port(node, 28040), body, "PATCH")

    def switchover(self, old, new, **more):
        ask("http://127.0.0.1:%d/switchover" % port(old, 28040), {"leader": old, "candidate": new, **more})

    def bring_up(self):
        wait("etcd", lambda: ask(ETCD + "/health"))
        self.start("n1")
        wait("primary", lambda: ask("http://127.0.0.1:%d/primary" % port("n1", 28040)))
        self.start("n2", "n3")
        return self.settled("n1")


def first(condition):
    """The first revision whose keys fulfil the condition."""
    for r in range(1, 10000):
        if condition(dump := keys(r)):
            return dump


def upgrade(lab):
    lab.save("upgrade-old-leads", lab.bring_up())
    lab.switchover("n1", "n2")
    lab.save("upgrade-new-leads", lab.settled("n2"))


def situations(lab):
    up = lab.bring_up()
    lab.save("normal", up)
    lab.save("bootstrap", first(lambda d: "initialize" in d))
    lab.save("creating-replica", first(lambda d: any(m["state"] == "creating replica" for m in members(d).values())))

    lab.patch("n1", {"synchronous_mode": True})
    lab.save("sync", lab.settled("n1", lambda d: value(d, "sync").get("sync_standby")))
    if "primary" == members(up)["n1"]["role"]:  # since 4.0
        lab.patch("n1", {"synchronous_mode": "quorum"})
        lab.save("quorum", lab.settled("n1", lambda d: value(d, "config")["synchronous_mode"] == "quorum"))
    lab.patch("n1", {"synchronous_mode": None})
    lab.settled("n1", lambda d: not value(d, "sync").get("leader"))

    lab.patch("n1", {"failsafe_mode": True, "postgresql": {"parameters": {"max_connections": 70}}})
    lab.save("failsafe", lab.settled("n1", lambda d: all(m.get("pending_restart") for m in members(d).values())))
    lab.patch("n1", {"pause": True})
    lab.save("pause", lab.settled("n1", lambda d: all(m.get("pause") for m in members(d).values())))
    lab.patch("n1", {"pause": None, "failsafe_mode": None})
    lab.settled("n1", lambda d: not any(m.get("pause") for m in members(d).values()))  # the key "failsafe" stays

    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    lab.switchover("n1", "n2", scheduled_at=at.isoformat())
    lab.save("switchover-scheduled", keys())
    ask("http://127.0.0.1:%d/switchover" % port("n1", 28040), method="DELETE")
    lab.switchover("n1", "n2")
    after = lab.settled("n2", lambda d: "history" in d)
    passed = after["leader"]["create"]
    lab.save("switchover-requested", first(lambda d: "scheduled_at" not in value(d, "failover") != {}))
    lab.save("switchover-leaderless", keys(passed - 1))
    lab.save("switchover-key-passed", keys(passed))
    lab.save("switchover", after)

    lab.stop("n3")
    lab.save("stopped", keys())
    lab.start("n3")
    lab.settled("n2")

    lab.kill("n2")
    time.sleep(3)
    lab.save("killed-stale", keys())
    after = lab.settled("n1", lambda d: len(value(d, "history")) == 2)
    lab.save("killed-leaderless", keys(after["leader"]["create"] - 1))
    lab.save("killed-key-passed", keys(after["leader"]["create"]))
    lab.save("killed", after)

    lab.patch("n1", {"standby_cluster": {"host": "127.0.0.1", "port": 5432, "primary_slot_name": "lab", "restore_command": "false"}})
    lab.save("standby", lab.settled("n1", lambda d: members(d)["n1"]["role"] == "standby_leader"))


def main(checkout, out, older=None):
    checkouts = dict.fromkeys(TAGS, os.path.abspath(checkout))
    if older:
        checkouts["n1"] = os.path.abspath(older)
    os.makedirs(out, exist_ok=True)
    lab = Lab(checkouts, os.path.abspath(out))
    try:
        upgrade(lab) if older else situations(lab)
    finally:
        lab.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
