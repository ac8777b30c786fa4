// Package packaging is how walbaton gets onto a machine. Nothing imports it; it holds files, and the tests that install them for real.
//
//	walbaton.service  the systemd unit, for packages and for an installation by hand
//	walbaton.yml      the settings that a package begins with
//	walbaton-wal.1    the manual page of the small client; the others are made of the commands (walbaton man)
//	nfpm.yaml         the Debian package, with what it does when it is installed and removed (postinst, prerm, postrm)
//
// .ci/package builds the Debian package, .ci/image the images of the Dockerfile, which needs no registry here. The tests have the build
// tag "servers": they need root, podman and Debian's packages (.ci/install).
package packaging
