//go:build servers

package drill

import (
	"os"
	"slices"
	"testing"
)

// What nobody did is found among what the chart allows; a request that was refused is no use of a right.
func TestUnusedRights(t *testing.T) {
	k := &kubernetesServer{dir: t.TempDir(), endpoints: true}
	if _, err := k.rights(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := `{"verb":"list","objectRef":{"resource":"pods"},"responseStatus":{"code":200}}
{"verb":"patch","objectRef":{"resource":"pods"},"responseStatus":{"code":403}}
{"verb":"create","objectRef":{"resource":"leases"},"responseStatus":{"code":201}}
{"verb":"upd`
	if err := os.WriteFile(k.in(auditLog), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := (&Cluster{dcs: k}).UnusedRights()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"patch pods", "watch pods", "create endpoints", "get endpoints", "list endpoints", "patch endpoints", "watch endpoints", "list leases", "watch leases", "update leases"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
