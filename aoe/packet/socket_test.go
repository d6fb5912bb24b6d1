package packet

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loopback moves the test's thread into a network namespace of its own, where lo has a
// small MTU, and opens a socket. What it sends comes back to it.
func loopback(t *testing.T, o Options) *Socket {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	setMTU(t, 1500)
	setUp(t, true)
	o.Filter.Everything = true
	s, err := Open("lo", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.SetRecvDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return s
}

func ioctlLo(t *testing.T, req uintptr, data ...byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r := ifreq{name: [unix.IFNAMSIZ]byte{'l', 'o'}}
	copy(r.data[:], data)
	if err := r.ioctl(uintptr(fd), req); err != nil {
		t.Fatal(err)
	}
}

func setMTU(t *testing.T, n int) {
	t.Helper()
	ioctlLo(t, unix.SIOCSIFMTU, byte(n), byte(n>>8))
}

func setUp(t *testing.T, up bool) {
	t.Helper()
	ioctlLo(t, unix.SIOCSIFFLAGS, map[bool]byte{true: unix.IFF_UP}[up])
}

func testFrame(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	copy(b[6:], []byte{2, 0, 0, 0, 0, 9, 0x88, 0xa2, 0x10})
	return b
}

// both runs a test with a ring and without.
func both(t *testing.T, test func(t *testing.T, s *Socket)) {
	for name, o := range map[string]Options{"ring": {}, "recvmmsg": {NoRing: true}} {
		t.Run(name, func(t *testing.T) {
			s := loopback(t, o)
			if (s.ring != nil) == o.NoRing {
				t.Fatalf("ring %v", s.ring != nil)
			}
			test(t, s)
		})
	}
}

// receive returns the next n frames.
func receive(t *testing.T, s *Socket, n int) (frames [][]byte, times []time.Time) {
	t.Helper()
	for len(frames) < n {
		bufs, at := buffers(maxBatch, 1600), make([]time.Time, maxBatch)
		k, err := s.Recv(bufs, at)
		if err != nil {
			t.Fatalf("after %d of %d frames: %v", len(frames), n, err)
		}
		frames, times = append(frames, bufs[:k]...), append(times, at[:k]...)
	}
	return frames, times
}

func TestRecv(t *testing.T) {
	both(t, func(t *testing.T, s *Socket) {
		const total = 5000 // more than the ring has slots
		sizes := []int{60, 1514, 900, 61}
		for done := 0; done < total; {
			var out [][]byte
			for i := range 100 {
				out = append(out, testFrame(sizes[i%len(sizes)]))
			}
			began := time.Now()
			if n, err := s.Send(out); n != len(out) || err != nil {
				t.Fatal(n, err)
			}
			got, times := receive(t, s, len(out))
			for i, b := range got {
				if !bytes.Equal(b, out[i]) {
					t.Fatalf("frame %d: %d bytes, sent %d", done+i, len(b), len(out[i]))
				}
				if times[i].Before(began.Add(-time.Millisecond)) || times[i].After(time.Now()) {
					t.Fatalf("frame %d arrived %v after it was sent", done+i, times[i].Sub(began))
				}
			}
			done += len(out)
		}
		if st := s.Stats(); st.Received != total || st.Sent != total || st.Overruns != 0 || st.Truncated != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestRecvTooLong(t *testing.T) {
	both(t, func(t *testing.T, s *Socket) {
		if _, err := s.Send([][]byte{testFrame(1000), testFrame(99)}); err != nil {
			t.Fatal(err)
		}
		bufs := buffers(2, 100)
		if n, err := s.Recv(bufs, nil); n != 2 || err != nil || len(bufs[0]) != 0 || len(bufs[1]) != 99 {
			t.Errorf("%d, %v, lengths %d and %d", n, err, len(bufs[0]), len(bufs[1]))
		}
		if st := s.Stats(); st.Truncated != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// The MTU grows: after Refresh the ring holds what it admits. If a frame comes before,
// that one is lost.
func TestRingFollowsMTU(t *testing.T) {
	s := loopback(t, Options{})
	setMTU(t, 4000)
	if _, err := s.Send([][]byte{testFrame(4014)}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 4014} {
		bufs := buffers(1, 20000)
		if n, err := s.Recv(bufs, nil); n != 1 || err != nil || len(bufs[0]) != want {
			t.Fatalf("frame %d of 4014: %d, %v, %d bytes", i, n, err, len(bufs[0]))
		}
		if _, err := s.Send([][]byte{testFrame(4014)}); err != nil {
			t.Fatal(err)
		}
	}
	setMTU(t, 9000)
	if changed, err := s.Refresh(); !changed || err != nil || s.MTU() != 9000 {
		t.Fatalf("refresh: %v, %v, %d", changed, err, s.MTU())
	}
	if _, err := s.Send([][]byte{testFrame(9014)}); err != nil {
		t.Fatal(err)
	}
	bufs := buffers(1, 20000)
	if n, err := s.Recv(bufs, nil); n != 1 || err != nil || len(bufs[0]) != 9014 {
		t.Fatalf("frame of 9014: %d, %v, %d bytes", n, err, len(bufs[0]))
	}
}

func TestRecvTellsLinkDown(t *testing.T) {
	both(t, func(t *testing.T, s *Socket) {
		setUp(t, false)
		if n, err := s.Recv(buffers(1, 100), nil); n != 0 || !errors.Is(err, unix.ENETDOWN) {
			t.Fatalf("interface down: %d, %v", n, err)
		}
		setUp(t, true)
		if _, err := s.Send([][]byte{testFrame(80)}); err != nil {
			t.Fatal(err)
		}
		if got, _ := receive(t, s, 1); len(got[0]) != 80 {
			t.Errorf("up again: %d bytes", len(got[0]))
		}
		if st := s.Stats(); st.LinkDowns != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// What makes Recv return makes it return while it waits, and every time after.
func TestRecvIsEnded(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *Socket) error
		want error
	}{
		"stop":     {(*Socket).StopRecv, os.ErrDeadlineExceeded},
		"close":    {(*Socket).Close, os.ErrClosed},
		"deadline": {func(*Socket) error { return nil }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			s := loopback(t, Options{})
			if err := s.SetRecvDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if name != "deadline" {
				if err := s.SetRecvDeadline(time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			got := make(chan error)
			go func() {
				for range 2 {
					_, err := s.Recv(buffers(1, 100), nil)
					got <- err
				}
			}()
			time.Sleep(20 * time.Millisecond)
			if err := c.end(s); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				select {
				case err := <-got:
					if !errors.Is(err, c.want) {
						t.Errorf("%v, want %v", err, c.want)
					}
				case <-time.After(time.Minute):
					t.Fatal("Recv goes on")
				}
			}
		})
	}
}

func TestTryRecv(t *testing.T) {
	both(t, func(t *testing.T, s *Socket) {
		if n, err := s.TryRecv(buffers(2, 100), nil); n != 0 || err != nil {
			t.Fatalf("%d, %v, want nothing", n, err)
		}
		if _, err := s.Send([][]byte{testFrame(60), testFrame(61)}); err != nil {
			t.Fatal(err)
		}
		bufs, n := buffers(3, 100), 0
		for end := time.Now().Add(time.Minute); n < 2 && time.Now().Before(end); { // a loaded kernel delivers later
			got, err := s.TryRecv(bufs[n:], nil)
			if err != nil {
				t.Fatal(err)
			}
			n += got
		}
		if n != 2 || len(bufs[1]) != 61 {
			t.Fatalf("%d frames of lengths %d and %d", n, len(bufs[0]), len(bufs[1]))
		}
		setUp(t, false)
		if n, err := s.TryRecv(buffers(1, 100), nil); n != 0 || s.ring == nil && err == nil {
			t.Errorf("interface down: %d, %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.TryRecv(buffers(1, 100), nil); err == nil {
			t.Error("received from a closed socket")
		}
	})
}
