#!/bin/sh
# systemctl of a node in a drill, where no systemd runs: it does what the units say, as far as ours and Patroni's go. A service is ready when its
# process answers on the port of the sidecar's web page (Type=notify says it otherwise), and has stopped when the process is gone.
set -eu

units() { # the verb's arguments, but for the flags
	for u in "$@"; do
		case $u in -*) ;; *) echo "${u%.service}" ;; esac
	done
}

file() {
	for f in "/etc/systemd/system/$1.service" "/usr/lib/systemd/system/$1.service"; do
		if [ -f "$f" ]; then
			echo "$f"
			return
		fi
	done
	echo "Unit $1.service not found." >&2
	return 5
}

setting() { sed -n "s/^$2=//p" "$1"; }

pid() { # of a service that runs
	case $1 in
	patroni) pgrep -f "patroni (/etc/patroni/config.yml|@DIR@/patroni.yml)" | while read -r p; do
		[ "$(readlink "/proc/$p/cwd")" != "@DIR@" ] || echo "$p"
	done | head -n 1 ;;
	*) if [ -f "/run/$1.pid" ] && kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; then cat "/run/$1.pid"; fi ;;
	esac
}

start() {
	[ -z "$(pid "$1")" ] || return 0
	f=$(file "$1")
	user=$(setting "$f" User) command=$(setting "$f" ExecStart)
	for d in $(setting "$f" RuntimeDirectory); do install -d -o "$user" -g "$user" -m "$(setting "$f" RuntimeDirectoryMode | grep . || echo 755)" "/run/$d"; done
	for e in $(setting "$f" EnvironmentFile); do
		case $e in -*) [ -f "${e#-}" ] || continue ;; esac
		set -a && . "${e#-}" && set +a
	done
	cd "@DIR@"
	# shellcheck disable=SC2086 # the words of the command
	setsid setpriv --reuid "$user" --regid "$user" --init-groups ${command#-} >>"log/$1-service.log" 2>&1 </dev/null &
	echo $! >"/run/$1.pid"
	[ "$1" = walbaton ] || return 0
	for _ in $(seq 300); do
		curl -fsS -o /dev/null http://localhost:9847/livez 2>/dev/null && return 0
		kill -0 "$(cat "/run/$1.pid")" 2>/dev/null || break
		sleep 0.1
	done
	echo "Job for $1.service failed." >&2
	tail -n 5 "log/$1-service.log" >&2
	return 1
}

stop() {
	p=$(pid "$1")
	[ -n "$p" ] || return 0
	kill "$p"
	while grep -qs '^State:[[:space:]]*[^Z]' "/proc/$p/status"; do sleep 0.1; done
}

verb=$1
shift
case $verb in
daemon-reload | edit) ;;
enable | disable)
	for u in $(units "$@"); do
		file "$u" >/dev/null
		case " $* " in *" --now "*) [ "$verb" = enable ] && start "$u" || stop "$u" ;; esac
	done ;;
start) for u in $(units "$@"); do start "$u"; done ;;
stop) for u in $(units "$@"); do stop "$u"; done ;;
restart) for u in $(units "$@"); do stop "$u" && start "$u"; done ;;
reload) for u in $(units "$@"); do kill -HUP "$(pid "$u")"; done ;;
is-active | status)
	for u in $(units "$@"); do
		if [ -n "$(pid "$u")" ]; then echo active; else echo inactive && exit 3; fi
	done ;;
*)
	echo "systemctl: $verb is not known here" >&2
	exit 1 ;;
esac
