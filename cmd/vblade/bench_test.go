package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/packet"
)

// BenchmarkServe measures random requests with a window against our vblade and
// Debian's, over a veth pair, the initiator in this process. It is meant for
// the ratio of the two on one machine:
//
//	go test ./cmd/vblade -run xxx -bench Serve -benchtime 2s
func BenchmarkServe(b *testing.B) {
	// What both advertise. With more, Debian's loses frames: its socket buffer
	// is 16 frames, and each loss costs the generator half a second.
	const window = 16
	ours := build(b)
	for _, mtu := range []int{1500, 9000} {
		n := newNets(b, mtu)
		path := image(b, 128<<10) // 64 MiB
		link := n.socket(b)
		for _, job := range []struct {
			name string
			opts []string
			cmd  uint8
		}{
			{"read", nil, aoe.ATAReadExt},
			{"write", nil, aoe.ATAWriteExt},
			{"write-s", []string{"-s"}, aoe.ATAWriteExt},
			{"read-d", []string{"-d"}, aoe.ATAReadExt},
		} {
			for name, bin := range map[string]string{"replblk": ours, "debian": debian} {
				b.Run(fmt.Sprintf("%s/mtu%d/%s", job.name, mtu, name), func(b *testing.B) {
					s := n.start(b, bin, append(job.opts, "7", "3", "srv", path)...)
					g := newGenerator(link, job.cmd, int(aoe.AdvertisedSectors(mtu)))
					b.SetBytes(int64(g.count) * 512)
					b.ResetTimer()
					if err := g.run(b.N, window); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
					b.ReportMetric(float64(g.repeats), "repeats")
					_ = s.stop(b)
				})
			}
		}
	}
}

// generator keeps a window of requests outstanding; the tag's low bits are the
// place in the window.
type generator struct {
	link    *packet.Socket
	count   int
	frames  [][]byte
	repeats int
}

func newGenerator(link *packet.Socket, cmd uint8, count int) *generator {
	g := &generator{link: link, count: count}
	for i := range 256 {
		h := aoe.Header{Dst: aoe.MAC{2, 0, 0, 0, 0, 1}, Src: link.HardwareAddr(), Version: 1, Shelf: 7, Slot: 3, Tag: uint32(i)}
		a := aoe.ATA{Flags: aoe.ATAFlagExt, Command: cmd, Count: uint8(count)}
		f := a.AppendTo(h.AppendTo(nil))
		if cmd == aoe.ATAWriteExt {
			f[24] |= aoe.ATAFlagWrite
			f = append(f, make([]byte, count*512)...)
		}
		g.frames = append(g.frames, f)
	}
	return g
}

// next makes frame i a new request.
func (g *generator) next(i int, seq uint32) []byte {
	f := g.frames[i]
	binary.BigEndian.PutUint32(f[20:], seq<<8|uint32(i))
	binary.LittleEndian.PutUint32(f[28:], uint32(rand.IntN((128<<10)/g.count)*g.count))
	return f
}

func (g *generator) run(total, window int) error {
	window = min(window, total)
	var seq uint32
	out := make([][]byte, 0, window)
	waiting := make([]bool, window)
	for i := range window {
		seq++
		out = append(out, g.next(i, seq))
		waiting[i] = true
	}
	started := window
	full := make([][]byte, 64)
	for i := range full {
		full[i] = make([]byte, 10000)
	}
	bufs := make([][]byte, len(full))
	for done := 0; done < total; {
		if _, err := g.link.Send(out); err != nil {
			return err
		}
		out = out[:0]
		copy(bufs, full)
		if err := g.link.SetRecvDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return err
		}
		n, err := g.link.Recv(bufs, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			for i, w := range waiting {
				if w {
					out = append(out, g.frames[i])
					g.repeats++
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, b := range bufs[:n] {
			i := int(b[23])
			if i >= window || !waiting[i] || b[14]&8 == 0 || binary.BigEndian.Uint32(b[20:]) != binary.BigEndian.Uint32(g.frames[i][20:]) {
				continue
			}
			if b[27] != aoe.StatusReady || b[14]&4 != 0 {
				return fmt.Errorf("answer % x", b[:36])
			}
			done++
			if waiting[i] = started < total; waiting[i] {
				started++
				seq++
				out = append(out, g.next(i, seq))
			}
		}
	}
	return nil
}
