//go:build servers

package zookeeper

type authority struct{ server, trust string }
