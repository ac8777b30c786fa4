package sftp_test

import (
	"strings"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/sftp"
)

func TestOpen(t *testing.T) {
	for url, want := range map[string]string{
		"sftp://wal@h/srv/wal":                                 "sftp://wal@h/srv/wal",
		"sftp://wal@h:22/srv//wal/":                            "sftp://wal@h/srv/wal",
		"sftp://wal@[::1]:2222/?key_file=/k":                   "sftp://wal@[::1]:2222/",
		"sftp://wal@h/a%20b?key_file=/k&known_hosts_file=/kh":  "sftp://wal@h/a%20b",
		"sftp://h/srv/wal":                                     "names no user",
		"sftp://wal@h":                                         "names no folder",
		"sftp:///srv/wal":                                      "is not like sftp://user@host",
		"sftp://wal@h/srv#x":                                   "is not like sftp://user@host",
		"sftp:wal@h/srv":                                       "is not like sftp://user@host",
		"sftp://wal:hush@h/srv/wal":                            "holds no password",
		"sftp://wal:hush@h:x/srv/wal":                          "not a URL",
		"sftp://wal@h/srv?key=/k":                              `unknown query key "key"; there are key_file, known_hosts_file, passphrase_file`,
		"sftp://wal@h/srv?key_file=":                           "wants one value",
		"sftp://wal@h/srv?key_file=id_rsa":                     "not absolute",
		"sftp://wal@h/srv?passphrase_file=/p":                  "goes together with key_file",
		"sftp://wal@h/srv?key_file=/k&key_file=/l":             "wants one value",
		"sftp://wal@h/srv?key_file=/k;known_hosts_file=/hosts": "does not parse",
	} {
		s, err := sftp.Open(url, sftp.Options{})
		switch {
		case err == nil && s.String() != want:
			t.Errorf("open %s: got %s, want %s", url, s, want)
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("open %s: got %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("open %s: %v tells a secret", url, err)
		}
	}
}
