package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Discover asks Exhibitor, one after the other, for the hosts of its ensemble
// (patroni/dcs/exhibitor.py). It asks once; the caller keeps the answer.
func Discover(ctx context.Context, client *http.Client, exhibitors []string) ([]string, error) {
	last := errors.New("none is named")
	for _, e := range exhibitors {
		hosts, err := ask(ctx, client, "http://"+e+"/exhibitor/v1/cluster/list")
		if err == nil {
			return hosts, nil
		}
		last = err
	}
	return nil, fmt.Errorf("ask exhibitor for the hosts of zookeeper: %w", last)
}

func ask(ctx context.Context, client *http.Client, url string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var list struct {
		Servers []string `json:"servers"`
		Port    int      `json:"port"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", url, resp.Status, err)
	}
	if len(list.Servers) == 0 || list.Port <= 0 {
		return nil, fmt.Errorf("%s: %s: no servers and port in it", url, resp.Status)
	}
	var hosts []string
	for _, s := range list.Servers {
		hosts = append(hosts, net.JoinHostPort(s, strconv.Itoa(list.Port)))
	}
	return hosts, nil
}
