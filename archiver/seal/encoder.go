package seal

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// encoder writes one frame after the other. It starts no goroutine, and may be dropped at any time.
type encoder interface {
	reset(w io.Writer, size int64) error // the next frame has size plain bytes; a nil w lets go of the last one
	io.WriteCloser                       // Close ends the frame
}

func newEncoder(codec Codec) (encoder, error) {
	switch codec {
	case Zstd:
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1), // 1 means: no goroutines
			// The fastest level remembers too little to find anything further back, and with the default of
			// 4 MiB an encoder takes 9 MB instead of 3.
			zstd.WithWindowSize(1<<20),
			zstd.WithZeroFrames(true), // a frame also for nothing
			zstd.WithEncoderCRC(true)) // so that `zstd -d` finds damage
		return zstdEncoder{e}, err
	case LZ4:
		return newLZ4Encoder(), nil
	case None:
		return newStoredEncoder(), nil
	}
	return nil, fmt.Errorf("codec %q is not known", codec)
}

type zstdEncoder struct{ *zstd.Encoder }

func (e zstdEncoder) reset(w io.Writer, size int64) error {
	e.ResetContentSize(w, size)
	return nil
}
