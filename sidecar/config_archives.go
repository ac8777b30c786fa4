package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Several archives are a list of mappings in walbaton.yml, `archives:`. Each holds the keys that `archive:` has, but for those that are about what is
// put and not where, and two of its own.

// archivesKey is the only key of walbaton.yml that is no setting: it has no default, no flag and no variable.
const archivesKey = "archives"

// ofAll are the keys of `archive:` that hold for all archives, for the one sealed object goes to each.
var ofAll = [...]string{"archive.codec"}

// archiveSettings are the keys of one element.
func archiveSettings(all []setting) []setting {
	out := []setting{
		{key: "name", set: text(func(c *Config) *string { return &c.Archive.Name })},
		{key: "required", value: "true", set: truth(func(c *Config) *bool { return &c.Archive.Required })},
	}
	for _, s := range all {
		if key, ok := strings.CutPrefix(s.key, "archive."); ok && !slices.Contains(ofAll[:], s.key) {
			s.key = key
			out = append(out, s)
		}
	}
	return out
}

func truth(field func(*Config) *bool) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		switch v[0] {
		case "true", "yes", "on":
			*field(c) = true
		case "false", "no", "off":
			*field(c) = false
		default:
			return fmt.Errorf("%q is neither true nor false", v[0])
		}
		return nil
	}
}

// archives reads the list.
func (r *reader) archives(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return withHint(r.fail(n, "%s must be a list of archives", archivesKey), "write each on a line of its own: - {name: near, url: s3://bucket/prefix}")
	}
	settings := archiveSettings(r.all)
	for _, e := range n.Content {
		if e.Kind == yaml.AliasNode {
			e = e.Alias
		}
		if e.Kind != yaml.MappingNode {
			return withHint(r.fail(e, "each of %s must hold keys", archivesKey), "write it as - {name: near, url: s3://bucket/prefix}")
		}
		var one Config
		for _, s := range settings {
			if s.value != "" {
				if err := s.set(&one, []string{s.value}); err != nil {
					return fmt.Errorf("set default of %s: %w", s.key, err)
				}
			}
		}
		inner := reader{path: r.path, getenv: r.getenv, all: settings, config: &one, element: true}
		if err := inner.mapping("", e); err != nil {
			return err
		}
		a := one.Archive
		a.Codec = ""
		switch {
		case a.URL == "":
			return withHint(r.fail(e, "an archive has no url"), "write it as - {name: near, url: s3://bucket/prefix}")
		case !isElement(a.Name) || strings.Contains(a.Name, ":"):
			return withHint(r.fail(e, "the archive %s needs a name of one word, and has %q", a.URL, a.Name), "give each a short name of its own; --archive, messages and metrics use it")
		case slices.ContainsFunc(r.config.Archives, func(b ArchiveConfig) bool { return b.Name == a.Name || b.URL == a.URL }):
			return withHint(r.fail(e, "the archive %s (%s) comes twice", a.Name, a.URL), "each needs a name and an address of its own")
		}
		if err := a.check(); err != nil {
			return err
		}
		r.config.Archives = append(r.config.Archives, a)
	}
	if !slices.ContainsFunc(r.config.Archives, func(a ArchiveConfig) bool { return a.Required }) {
		return withHint(r.fail(n, "none of the archives is required, so push would wait for none"), "leave required: false out for at least one")
	}
	return nil
}

// check refuses what cannot work together.
func (a ArchiveConfig) check() error {
	where := "archive"
	if a.Name != "" {
		where = "archive " + a.Name
	}
	if a.AccountKey != "" && a.SASToken != "" {
		return withHint(configError(where, "account_key and sas_token exclude each other"), "give the SAS token: it can permit less")
	}
	if (a.AccessKeyID == "") != (a.SecretAccessKey == "") {
		return withHint(configError(where, "access_key_id and secret_access_key belong together, and one of them is missing"),
			"give both, or neither: then the environment, a profile or a role of this machine gives them")
	}
	return nil
}

// chooseArchive makes Archive the one of several that --archive or WALBATON_ARCHIVE names by its name or its address, or the first of them.
func (c *Config) chooseArchive() error {
	if len(c.Archives) == 0 {
		return nil
	}
	codec, want := c.Archive.Codec, c.Archive.URL
	at := 0
	if want != "" {
		at = slices.IndexFunc(c.Archives, func(a ArchiveConfig) bool { return a.Name == want || a.URL == want })
		c.chosen = true
	}
	switch {
	case at >= 0:
		c.Archive = c.Archives[at]
	case !strings.Contains(want, ":"):
		var names []string
		for _, a := range c.Archives {
			names = append(names, a.Name)
		}
		return withHint(configError("--archive", "there is no archive %q", want), "the archives are: "+strings.Join(names, ", "))
	default:
		c.Archive = ArchiveConfig{URL: want} // another one, which the file does not name
	}
	c.Archive.Codec = codec
	if c.chosen || len(c.Archives) == 1 {
		c.Archives = nil
	}
	return nil
}

// ofArchive is the configuration with one of several archives in the place of all.
func (c Config) ofArchive(a ArchiveConfig) Config {
	a.Codec = c.Archive.Codec
	c.Archive, c.Archives = a, nil
	return c
}
