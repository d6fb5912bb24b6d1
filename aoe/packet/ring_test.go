package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// put does the kernel's part: it puts a frame of n bytes, of which here are there, into
// slot i.
func put(r *ring, i, n, here int, at time.Time) {
	slot := r.mem[i/r.each*r.block+i%r.each*r.slot:]
	binary.NativeEndian.PutUint32(slot[4:], uint32(n))
	binary.NativeEndian.PutUint32(slot[8:], uint32(here))
	binary.NativeEndian.PutUint16(slot[12:], 66)
	binary.NativeEndian.PutUint32(slot[16:], uint32(at.Unix()))
	binary.NativeEndian.PutUint32(slot[20:], uint32(at.Nanosecond()))
	for j := range here {
		slot[66+j] = byte(i + j)
	}
	status(slot).Store(unix.TP_STATUS_USER | unix.TP_STATUS_CSUMNOTREADY)
}

func buffers(n, size int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	return bufs
}

// TestRing: three slots in a block of 700 bytes, two blocks, so that a block has a rest.
func TestRing(t *testing.T) {
	r := &ring{mem: make([]byte, 1400), block: 700, slot: 208, each: 3, count: 6, room: 100}
	times := make([]time.Time, 4)
	if n, _ := r.receive(buffers(4, 100), times); n != 0 {
		t.Fatalf("%d frames in an empty ring", n)
	}
	arrived := time.Now().Add(-time.Second)
	for round, next := 0, 0; round < 5; round++ { // 20 frames: three times around
		for i := range 4 {
			put(r, (next+i)%6, 60+i, 60+i, arrived)
		}
		bufs := buffers(4, 100)
		n, truncated := r.receive(bufs[:3], times)
		if n != 3 || truncated != 0 {
			t.Fatalf("round %d: %d frames, %d truncated", round, n, truncated)
		}
		if n, _ = r.receive(bufs[3:], times[3:]); n != 1 {
			t.Fatalf("round %d: %d frames left", round, n)
		}
		for i, b := range bufs {
			want := make([]byte, 60+i)
			for j := range want {
				want[j] = byte((next+i)%6 + j)
			}
			if !bytes.Equal(b, want) {
				t.Fatalf("round %d, frame %d: % x, want % x", round, i, b, want)
			}
			if d := times[i].Sub(arrived); d.Abs() > 500*time.Millisecond {
				t.Errorf("round %d, frame %d: time of arrival is %v off", round, i, d)
			}
		}
		next = (next + 4) % 6
	}
}

func TestRingTruncates(t *testing.T) {
	r := &ring{mem: make([]byte, 700), block: 700, slot: 208, each: 3, count: 3, room: 100}
	put(r, 0, 300, 142, time.Now()) // longer than the slot
	put(r, 1, 101, 101, time.Now()) // longer than the buffer
	put(r, 2, 100, 100, time.Now().Add(time.Hour))
	bufs, times := buffers(3, 100), make([]time.Time, 3)
	n, truncated := r.receive(bufs, times)
	if n != 3 || truncated != 2 || len(bufs[0]) != 0 || len(bufs[1]) != 0 || len(bufs[2]) != 100 {
		t.Errorf("%d frames, %d truncated, lengths %d, %d, %d", n, truncated, len(bufs[0]), len(bufs[1]), len(bufs[2]))
	}
	if time.Until(times[2]) > 0 {
		t.Errorf("a frame arrives in %v", time.Until(times[2]))
	}
}
