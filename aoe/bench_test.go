package aoe

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/block/mem"
)

// batchLink delivers the same frames again and again, in full batches.
type batchLink struct {
	*memLink
	frames [][]byte
	left   int
	done   func()
}

func (l *batchLink) Recv([][]byte, []time.Time) (int, error) {
	l.done()
	<-l.stop
	return 0, os.ErrDeadlineExceeded
}

func (l *batchLink) TryRecv(bufs [][]byte, times []time.Time) (int, error) {
	if l.left <= 0 {
		return 0, nil
	}
	now := time.Now()
	for i := range bufs {
		bufs[i] = bufs[i][:copy(bufs[i], l.frames[i%len(l.frames)])]
		times[i] = now
	}
	l.left -= len(bufs)
	return len(bufs), nil
}

func (l *batchLink) Send(frames [][]byte) (int, error) { return len(frames), nil }

// BenchmarkPort is what a frame costs between the two system calls, without the device.
func BenchmarkPort(b *testing.B) {
	for _, write := range []bool{false, true} {
		b.Run(map[bool]string{false: "read", true: "write"}[write], func(b *testing.B) {
			l := &batchLink{memLink: newMemLink(), left: b.N}
			for i := range batch {
				if write {
					l.frames = append(l.frames, writeFrame(uint32(i), uint64(i*2), 1, 2))
				} else {
					l.frames = append(l.frames, ataFrame(uint32(i), ATA{Flags: ATAFlagExt, Command: ATAReadExt, Count: 2, LBA: uint64(i * 2)}, nil))
				}
			}
			p, err := NewPort(newTestTarget(b, mem.New(1000), func(o *Options) { o.Commit = CommitNone }))
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			l.done = cancel
			b.ResetTimer()
			if err := p.Serve(ctx, l, ServeOptions{}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
		})
	}
}
