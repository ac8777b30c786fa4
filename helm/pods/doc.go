// Package pods holds one test: the pods of the chart run for real. There is a kube-apiserver, with what helm installs in it, but no kubelet and
// no controller; the test is both, by podman. It plays a pod of the StatefulSet for each ordinal, with the containers, users, volumes,
// probes and the service account that the chart gives them, and reports their state to the API server, where Patroni and the
// sidecars look for each other.
package pods
