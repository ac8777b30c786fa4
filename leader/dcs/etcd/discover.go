package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Lookup is net.Resolver.LookupSRV.
type Lookup func(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)

// Discover finds the endpoints of the option srv in DNS, in the order of Patroni's records
// (patroni/dcs/etcd.py): _etcd-client-ssl, _etcd-client, _etcd-ssl, _etcd; with a suffix
// each followed by "-" and the suffix. Records of servers, which speak to their peers only,
// are not used. It asks once; the caller keeps the answer.
func Discover(ctx context.Context, lookup Lookup, domain, suffix string) ([]string, error) {
	var last error
	for _, service := range []string{"etcd-client-ssl", "etcd-client", "etcd-ssl", "etcd"} {
		scheme := "http"
		if strings.HasSuffix(service, "-ssl") {
			scheme = "https"
		}
		if suffix != "" {
			service += "-" + suffix
		}
		_, addrs, err := lookup(ctx, service, "tcp", domain)
		if err != nil && !notFound(err) {
			last = err
		}
		var urls []string
		for _, a := range addrs {
			urls = append(urls, scheme+"://"+net.JoinHostPort(strings.TrimSuffix(a.Target, "."), strconv.Itoa(int(a.Port))))
		}
		if len(urls) > 0 {
			return urls, nil
		}
	}
	if last == nil {
		last = errors.New("no _etcd-client-ssl, _etcd-client, _etcd-ssl or _etcd record")
	}
	return nil, fmt.Errorf("discover etcd in %s: %w", domain, last)
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
