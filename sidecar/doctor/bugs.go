package doctor

import "fmt"

// Bug is one of PostgreSQL's that concerns archiving, and was fixed in a minor version.
type Bug struct {
	Fixed  map[int]int // major version: the first minor version without it; others are not known to have it
	Does   string      // in one clause
	Always bool        // it concerns archive_mode = always only
	Source string
}

// Bugs are those that are known, the worst first. Minor versions are those of the release notes; a source that names a commit is of
// PostgreSQL's repository.
func Bugs() []Bug {
	return []Bug{
		{Fixed: map[int]int{12: 3}, Does: "crash recovery can recycle WAL that waits for the archive",
			Source: "release notes of 12.3; commit 4e87c4836a"},
		{Fixed: map[int]int{12: 9, 13: 5, 14: 1}, Does: "after a crash a segment that was archived already can be written anew, with other content",
			Source: "release notes of 14.1 and 13.5; commit ff9f111bce"},
		{Fixed: map[int]int{12: 13, 13: 9, 14: 6}, Does: "a promotion that ends in the middle of a record can write a segment that nobody can read",
			Source: "release notes of 14.6; commits 6672d79139 and 0b3ff539dd (12.13 and 13.9 by their dates)"},
		{Fixed: map[int]int{12: noFix, 13: 19, 14: 16, 15: 11}, Does: "a crash while a segment is recycled can leave one file under two names, and corrupt WAL",
			Source: "release notes of 15.11 (rename() instead of link()); commits 1f95181b44 and c1c9df315"},
		{Fixed: map[int]int{12: noFix, 13: noFix, 14: 15, 15: 10, 16: 6, 17: 2}, Does: "pg_rewind can delete WAL of the old primary that it needs and the archive does not have yet",
			Source: "release notes of 17.2, 16.6, 15.10 and 14.15; commit e28cf2fbc"},
		{Fixed: map[int]int{12: 5, 13: 1}, Does: "a standby does not archive history files that it has streamed", Always: true,
			Source: "release notes of 13.1 and 12.5; commit 462ff79669"},
		{Fixed: map[int]int{13: 12, 14: 9}, Does: "a promotion can fail where archiving is on and prepared transactions are to be recovered",
			Source: "release notes of 14.9; commit f663b00918"},
		{Fixed: map[int]int{12: noFix, 13: noFix, 14: 16}, Does: "a long backlog is archived ever more slowly: archive_status is read once for each file",
			Source: "commit 4abf615cc8; PostgreSQL 15 has it from the beginning"},
	}
}

// noFix stands for a major version that ended without the fix.
const noFix = 1000

// Has says whether a server of this server_version_num has the bug.
func (b Bug) Has(version int) bool {
	fixed, concerned := b.Fixed[version/10000]
	return concerned && version%10000 < fixed
}

// Update says which minor version is without the bug.
func (b Bug) Update(version int) string {
	major := version / 10000
	if b.Fixed[major] == noFix {
		return fmt.Sprintf("no %d has the fix", major)
	}
	return fmt.Sprintf("fixed in %d.%d", major, b.Fixed[major])
}
