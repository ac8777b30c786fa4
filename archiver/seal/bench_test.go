package seal

import (
	"bytes"
	"io"
	"syscall"
	"testing"
)

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

const segment = 16 << 20

// each runs f for each codec, not encrypted and encrypted.
func each(b *testing.B, f func(b *testing.B, codec Codec, id []Identity, to []Recipient)) {
	id, to := keyPair(b)
	for _, codec := range codecs {
		b.Run(string(codec), func(b *testing.B) { f(b, codec, nil, nil) })
		b.Run(string(codec)+"+age", func(b *testing.B) { f(b, codec, []Identity{id}, []Recipient{to}) })
	}
}

func BenchmarkPack(b *testing.B) {
	plain := walLike(segment)
	each(b, func(b *testing.B, codec Codec, _ []Identity, to []Recipient) {
		s := newSealer(b, codec, to...)
		b.SetBytes(segment)
		b.ReportAllocs()
		var size int64
		cpu := cpuSeconds(b)
		for b.Loop() {
			p, err := s.Pack(bytes.NewReader(plain), segment)
			if err != nil {
				b.Fatal(err)
			}
			o, err := p.Seal(someHeader)
			if err != nil {
				b.Fatal(err)
			}
			size = o.Size()
			o.Close()
		}
		b.ReportMetric((cpuSeconds(b)-cpu)/float64(b.N)*1000, "cpu-ms/op")
		b.ReportMetric(float64(segment)/float64(size), "ratio")
	})
}

func BenchmarkOpen(b *testing.B) {
	plain := walLike(segment)
	each(b, func(b *testing.B, codec Codec, id []Identity, to []Recipient) {
		object := sealed(b, codec, plain, to...)
		b.SetBytes(segment)
		b.ReportAllocs()
		cpu := cpuSeconds(b)
		for b.Loop() {
			_, r, err := Open(bytes.NewReader(object), id...)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
			r.Close()
		}
		b.ReportMetric((cpuSeconds(b)-cpu)/float64(b.N)*1000, "cpu-ms/op")
	})
}

func BenchmarkReadHeader(b *testing.B) {
	object := sealed(b, Zstd, walLike(1000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadHeader(bytes.NewReader(object)); err != nil {
			b.Fatal(err)
		}
	}
}
