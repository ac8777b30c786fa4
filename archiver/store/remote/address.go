package remote

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/walbaton/walbaton/archiver/store"
)

// Address is a parsed URL of an archive.
type Address struct {
	Host   string // bucket or account
	Path   string // without slashes around it; "" or what store.CheckKey takes
	Scheme string
}

// Parse reads an archive's URL. fields has a place for each key that its query may have; like is what it
// should look like ("s3://bucket/prefix"), and instead where credentials belong. No error shows a secret that stands in the wrong place.
func Parse(rawURL, like, instead string, fields map[string]*string) (Address, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return Address{}, errors.New("not a URL") // not err: it has the URL
	}
	q, err := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil:
		return Address{}, errors.New("the query of the URL does not parse")
	case u.User != nil:
		return Address{}, errors.New("a URL holds no credentials; use " + instead)
	case u.Host == "" || u.Port() != "" || u.Fragment != "":
		shown, _, _ := strings.Cut(rawURL, "?") // a secret may stand in the query
		return Address{}, fmt.Errorf("%q is not like %s", shown, like)
	}
	a := Address{Scheme: u.Scheme, Host: u.Host, Path: strings.Trim(u.Path, "/")}
	if a.Path != "" {
		if err := store.CheckKey(a.Path); err != nil {
			return Address{}, fmt.Errorf("prefix: %w", err)
		}
	}
	for name, values := range q {
		field, known := fields[name]
		switch {
		case !known:
			return Address{}, fmt.Errorf("unknown query key %q; known are %s", name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case len(values) != 1 || values[0] == "":
			return Address{}, fmt.Errorf("query key %q wants one value", name)
		}
		*field = values[0]
	}
	return a, nil
}

// CheckEndpoint wants an endpoint that is like http://host:port or https://host:port, with a path if it may have one.
func CheckEndpoint(endpoint string, path bool) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.User != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" ||
		!path && strings.Trim(u.Path, "/") != "" {
		return errors.New("the endpoint is not like http://host:port or https://host:port") // it may hold a secret
	}
	return nil
}
