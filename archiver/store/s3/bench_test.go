//go:build servers

package s3_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"syscall"
	"testing"

	"github.com/walbaton/walbaton/archiver/store/s3"
	"github.com/walbaton/walbaton/archiver/store/storetest/servers"
)

// BenchmarkPut puts bodies as large as a sealed segment; cpu-s/op is the driver's own.
func BenchmarkPut(b *testing.B) {
	body := make([]byte, 16<<20)
	_, _ = rand.Read(body)
	for _, tls := range []bool{false, true} {
		b.Run(fmt.Sprintf("MinIO tls=%v", tls), func(b *testing.B) {
			server, err := servers.MinIO(b.Context(), servers.Options{Dir: b.TempDir(), TLS: tls, Buckets: []string{"wal"}})
			if err != nil {
				b.Fatal(err)
			}
			defer server.Stop()
			s, err := s3.Open(b.Context(), server.URL("wal", ""), options)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			single := s.Variants(0)[0].Store
			before := cpu(b)
			n := 0
			for b.Loop() {
				n++
				if err := single.Put(b.Context(), fmt.Sprint("key", n), bytes.NewReader(body)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu(b)-before)/float64(n), "cpu-s/op")
		})
	}
}

// cpu is the processor time of this process in seconds.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
