package drill

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/walbaton/walbaton/docs"
)

// With [Options].Machines each node is as much of a machine as an administrator sees of one: it has an address of its own, where the usual ports
// are free, and folders of its own, /etc, /usr, /var, /home, /srv, /mnt and /run. They begin as this machine's, and what is written to them is
// gone with the drill. So whoever follows a page may type it as it stands there.
//
//   - /etc/patroni/config.yml is Patroni's configuration, and /var/lib/postgresql/15/main the data directory.
//   - /mnt/archive is the folder of the archive, on all nodes the same one, and so is /mnt/backups. /mnt/source is the checkout, and cannot be written to.
//   - sudo works for user postgres.
//   - systemctl is no systemd, which needs a machine that it has booted. It is a script, testdata/systemctl.sh, which does what the units say.

//go:embed testdata/systemctl.sh
var systemctl string

// furnish makes the node's own folders, in its mount namespace.
func (n *Node) furnish(ctx context.Context) error {
	if !n.c.o.Machines {
		return nil
	}
	source, err := docs.Root()
	if err != nil {
		return err
	}
	backups, err := n.c.folder("backups")
	if err != nil {
		return err
	}
	script := filepath.Join(n.Dir, "systemctl")
	text := strings.NewReplacer("@DIR@", n.Dir).Replace(systemctl)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return err
	}
	own := filepath.Join(n.Dir, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", furniture, "sh", own, n.Dir, strings.TrimPrefix(n.c.Store.URL(), "file://"), backups, source, n.PGData(), script)
	cmd.Dir = n.Dir
	return Run(n.inside(cmd))
}

// furniture gets the folder for what is written, the node's, those of archive, backups and checkout, the data directory, and the script.
const furniture = `
own=$1 node=$2 archive=$3 backups=$4 source=$5 pgdata=$6 systemctl=$7
mount --make-rprivate /
mount -t tmpfs -o mode=755 own "$own"
for d in etc usr var home srv; do
	mkdir "$own/$d" "$own/$d.work"
	mount -t overlay -o "lowerdir=/$d,upperdir=$own/$d,workdir=$own/$d.work" "$d" "/$d"
done
mount -t tmpfs -o mode=755 run /run
mkdir -m 1777 /run/lock
install -d -o postgres -m 775 /run/postgresql
mount -t tmpfs -o mode=755 mnt /mnt
mkdir /mnt/archive /mnt/backups /mnt/source
mount --bind "$archive" /mnt/archive
mount --bind "$backups" /mnt/backups
mount --bind "$source" /mnt/source
mount -o remount,bind,ro /mnt/source
mkdir -p /etc/patroni /var/lib/postgresql/15
ln -sf "$node/patroni.yml" /etc/patroni/config.yml
ln -s "$pgdata" /var/lib/postgresql/15/main
ln -s "$systemctl" /usr/local/sbin/systemctl
echo 'postgres ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/postgres
grep -q "[[:space:]]$(uname -n)\$" /etc/hosts || echo "127.0.1.1 $(uname -n)" >>/etc/hosts
`
