//go:build servers

package helm

import (
	"strings"
	"testing"
)

// values.schema.json finds what would only be seen when pods do not start.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct{ set, names string }{
		{"--set archive.uri=s3://wal/prod", "uri"},                                     // a typing error
		{"--set archive.url=wal/prod", "/archive/url"},                                 // no scheme
		{"--set archive.url=http://wal/prod", "/archive/url"},                          // not one of ours
		{"--set config.policies=replica", "policies"},                                  // unknown to walbaton.yml
		{"--set config.archive.urls=s3://wal", "urls"},                                 // the same, below
		{"--set config.socket=/tmp/s", "socket"},                                       // the chart's own
		{"--set config.archives[0].url=s3://wal/prod", "name"},                         // one of several has no name
		{"--set sidecar.native=sometimes", "/sidecar/native"},                          // neither auto, true nor false
		{"--set sidecar.port=0", "/sidecar/port"},                                      // no port
		{"--set sidecar.port=http", "/sidecar/port"},                                   // a word
		{"--set postgres.uid=0", "/postgres/uid"},                                      // root runs no PostgreSQL
		{"--set postgres.dataDir=data", "/postgres/dataDir"},                           // relative
		{"--set postgres.volume.name=My_Data", "/postgres/volume/name"},                // no name of Kubernetes
		{"--set patroni.flavor=crunchy", "/patroni/flavor"},                            // unknown kind of image
		{"--set patroni.archiveMode=off", "/patroni/archiveMode"},                      // then there is nothing to do
		{"--set patroni.replicas=0", "/patroni/replicas"},                              // no cluster
		{"--set patroni.replicas=three", "/patroni/replicas"},                          // a word
		{"--set patroni.scope=Shop", "/patroni/scope"},                                 // no name of a StatefulSet
		{"--set patroni.persistence.size=10GB", "/patroni/persistence/size"},           // no quantity of Kubernetes
		{"--set patroni.dcs.etcd.hosts=a:2379", "etcd"},                                // the API that is gone
		{"--set patroni.config.scope=other", "scope"},                                  // the chart's own
		{"--set patroni.podManagementPolicy=parallel", "/patroni/podManagementPolicy"}, // wrong case
		{"--set zalando.enabled=true", "/zalando/cluster"},                             // which one?
		{"--set zalando.enabled=true --set zalando.cluster=a --set patroni.enabled=true", "/patroni/enabled"},
		{"--set podMonitor.interval=often", "/podMonitor/interval"},
		{"--set image.tag=a:b", "/image/tag"},
		{"--set image.digest=sha256:12", "/image/digest"},
		{"--set image.pullPolicy=always", "/image/pullPolicy"},
		{"--set sidecar.extraEnv[0].nam=A", "nam"},
		{"--set sidecar.resources.request.cpu=1", "request"},
		{"--set imagePullSecrets[0].name=registry", "/imagePullSecrets/0"}, // names, not objects
		{"--set surprise=1", "surprise"},
	} {
		args := append([]string{"template", "demo", chart, "--kube-version", native}, strings.Fields(bad.set)...)
		if !strings.Contains(bad.set, "archive.u") {
			args = append(args, "--set", "archive.url=s3://wal/prod")
		}
		out, complaints, err := tryHelm(t, "", args...)
		if err == nil || !strings.Contains(complaints, "values don't meet the specifications of the schema") || !strings.Contains(complaints, bad.names) {
			t.Errorf("%s: %v\n%s, want a word about %s\n%.200s", bad.set, err, complaints, bad.names, out)
		}
	}
}

// Where no schema can help, a sentence says what to do.
func TestMessages(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{
		"patroni.enabled=true": "Where should the WAL go? --set archive.url=",
		"archive.url=s3://wal/a,zalando.enabled=true,zalando.cluster=acid-shop,archive.existingSecret=keys": "list the variables of the Secret in sidecar.extraEnv",
	} {
		_, complaints, err := tryHelm(t, "", "template", "demo", chart, "--kube-version", native, "--set", set)
		if err == nil || !strings.Contains(complaints, want) {
			t.Errorf("%s: %v\n%s, want %q", set, err, complaints, want)
		}
	}
}
