package patroni

import "testing"

func TestSaysReplication(t *testing.T) {
	for version, want := range map[string]bool{
		"": false, "2.1.7": false, "3.0.3": false, "3.0.4": true, "3.1.0": true, "4.0": true, "4.1.4": true, "3.0.4.dev1": true, "junk": false,
	} {
		if got := (Member{Version: version}).SaysReplication(); got != want {
			t.Errorf("Patroni %q: got %v, want %v", version, got, want)
		}
	}
}
