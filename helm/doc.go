// Package helm is the Helm chart of walbaton, and the tests that hold it to what it says.
//
//	helm/walbaton/              the chart: values.yaml documents it, README.md is made of that
//	helm/walbaton/ci/           one file of values for each way to use it; all are rendered and decoded strictly
//	helm/walbaton/files/        alerts and dashboard, which the chart wraps for Prometheus and Grafana
//	helm/examples/own-chart/    a chart of one's own that adds the sidecar to its pods
//
// There are four ways: the chart makes a Patroni cluster; another chart includes the named templates of templates/_sidecar.tpl; a
// cluster of the Zalando operator gets a patch of its manifest; or the chart gives rights, configuration and monitoring, and nothing else.
//
// README.md and the part of values.schema.json that mirrors docs/configuration.md are written by
//
//	go test ./helm -update
package helm
