package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

// Layout of the generator's receive ring: slots that hold the kernel's header and
// the first snapLen bytes of a frame.
const (
	ringSlot  = 256
	ringSlots = 1024
	ringBlock = 64 << 10
	snapLen   = 64
)

// repeatAfter is when a request that was not answered is sent again.
const repeatAfter = 200 * time.Millisecond

// generator is an initiator that costs as little as it can, so that the target is what
// is measured: it receives through a ring that holds the heads of the answers only,
// and sends all that the answers made room for with one system call.
type generator struct {
	fd     int
	source aoe.MAC
	ring   []byte
	at     int // slot of the ring that is filled next
}

// openGenerator opens a generator on an interface of a network namespace.
func openGenerator(ns, name string) (*generator, error) {
	g := &generator{fd: -1}
	err := aoetest.Inside(ns, func() error { return g.open(name) })
	if err != nil {
		g.close()
		return nil, fmt.Errorf("interface %s in %s: %w", name, ns, err)
	}
	return g, nil
}

func (g *generator) open(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	g.source = aoe.MAC(ifi.HardwareAddr)
	// No protocol: nothing is received before the filter is in place.
	if g.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := g.filter(); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(g.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: ringSlot * ringSlots / ringBlock, Frame_size: ringSlot, Frame_nr: ringSlots}
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(g.fd), unix.SOL_PACKET, unix.PACKET_RX_RING,
		uintptr(unsafe.Pointer(&req)), unsafe.Sizeof(req), 0); errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	if g.ring, err = unix.Mmap(g.fd, 0, ringSlot*ringSlots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if err := unix.SetsockoptInt(g.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", unix.Bind(g.fd, &unix.SockaddrLinklayer{Protocol: 0xa288, Ifindex: ifi.Index}))
}

// filter passes the heads of answers.
func (g *generator) filter() error {
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 14, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: uint32(aoe.FlagResponse), SkipTrue: 1},
		bpf.RetConstant{},
		bpf.RetConstant{Val: snapLen},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(g.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})) //nolint:gosec // four
}

func (g *generator) close() {
	if g.ring != nil {
		_ = unix.Munmap(g.ring)
	}
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
	}
}

// load is what a generator does, and what came of it.
type load struct {
	target  aoe.MAC
	window  int // at most 256
	sectors int // per request
	write   bool
	next    func() uint64 // the sector of the next request

	took    []time.Duration
	repeats uint64
	cpu     time.Duration // of the thread that runs the load

	places []windowPlace
	msgs   []mmsghdr
	iovs   []unix.Iovec
	out    int
}

// windowPlace is a place of the window.
type windowPlace struct {
	frame       []byte
	tag         uint32
	began, sent time.Time
	busy        bool
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func (l *load) setup(source aoe.MAC) {
	l.places = make([]windowPlace, l.window)
	l.msgs, l.iovs = make([]mmsghdr, l.window), make([]unix.Iovec, l.window)
	h := aoe.Header{Dst: l.target, Src: source, Version: aoe.Version, Shelf: shelf, Slot: slot}
	a := aoe.ATA{Flags: aoe.ATAFlagExt, Command: aoe.ATAReadExt, Count: uint8(l.sectors)} //nolint:gosec // fits a frame
	n := aoe.MinFrame
	if l.write {
		a.Flags |= aoe.ATAFlagWrite
		a.Command = aoe.ATAWriteExt
		n = aoe.DataOffset + l.sectors*512
	}
	for i := range l.places {
		l.places[i].frame = append(a.AppendTo(h.AppendTo(nil)), make([]byte, n-aoe.DataOffset)...)
		for at := aoe.DataOffset; at < n; at++ {
			l.places[i].frame[at] = byte(at * (i + 3)) //nolint:gosec // any data
		}
	}
}

// ask puts the next request into place i.
func (l *load) ask(i int, now time.Time) {
	p := &l.places[i]
	p.tag = (p.tag+256)&0x7fffff00 | uint32(i) //nolint:gosec // at most 256 places
	p.busy, p.began = true, now
	binary.BigEndian.PutUint32(p.frame[20:], p.tag)
	lba := l.next()
	binary.LittleEndian.PutUint32(p.frame[28:], uint32(lba)) //nolint:gosec // low half
	binary.LittleEndian.PutUint16(p.frame[32:], uint16(lba>>32))
	l.queue(i, now)
}

func (l *load) queue(i int, now time.Time) {
	p := &l.places[i]
	p.sent = now
	l.iovs[l.out].Base = &p.frame[0]
	l.iovs[l.out].SetLen(len(p.frame))
	l.msgs[l.out] = mmsghdr{}
	l.msgs[l.out].hdr.Iov = &l.iovs[l.out]
	l.msgs[l.out].hdr.SetIovlen(1)
	l.out++
}

// run keeps the window full for as long as d, then waits for what is outstanding.
func (g *generator) run(ctx context.Context, l *load, d time.Duration) (time.Duration, error) {
	runtime.LockOSThread() // the load is this one thread
	defer runtime.UnlockOSThread()
	l.setup(g.source)
	g.drain()
	began, used := time.Now(), threadCPU()
	end, look := began.Add(d), began.Add(repeatAfter/2)
	for i := range l.places {
		l.ask(i, began)
	}
	for busy := len(l.places); busy > 0; {
		if err := g.send(l); err != nil {
			return 0, err
		}
		n, err := g.receive(l, end)
		if err != nil {
			return 0, err
		}
		busy -= n
		if now := time.Now(); now.After(look) {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			look = now.Add(repeatAfter / 2)
			l.repeat(now)
		}
	}
	l.cpu = threadCPU() - used
	return time.Since(began), nil
}

func threadCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // there always is one
	return time.Duration(t.Nano())
}

// repeat sends again what has waited too long.
func (l *load) repeat(now time.Time) {
	for i := range l.places {
		if p := &l.places[i]; p.busy && now.Sub(p.sent) > repeatAfter && l.out < l.window {
			l.queue(i, now)
			l.repeats++
		}
	}
}

func (g *generator) send(l *load) error {
	for at := 0; at < l.out; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(g.fd), uintptr(unsafe.Pointer(&l.msgs[at])), uintptr(l.out-at), 0, 0, 0)
		switch errno {
		case 0:
			at += int(n) //nolint:gosec // as many as asked for
		case unix.EINTR:
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
	}
	l.out = 0
	return nil
}

// status is the word that says to whom a slot of the ring belongs.
func (g *generator) status() *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&g.ring[g.at*ringSlot]))
}

// drain empties the ring: late answers of an earlier load.
func (g *generator) drain() {
	for g.status().Load()&unix.TP_STATUS_USER != 0 {
		g.pass()
	}
}

func (g *generator) pass() {
	g.status().Store(unix.TP_STATUS_KERNEL)
	g.at = (g.at + 1) % ringSlots
}

// receive waits for answers and makes new requests of their places before end. It
// returns how many places it has left empty.
func (g *generator) receive(l *load, end time.Time) (left int, err error) {
	if g.status().Load()&unix.TP_STATUS_USER == 0 {
		fds := [1]unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		if _, err := unix.Poll(fds[:], 100); err != nil && !errors.Is(err, syscall.EINTR) {
			return 0, os.NewSyscallError("poll", err)
		}
	}
	now := time.Now()
	over := now.After(end)
	for g.status().Load()&unix.TP_STATUS_USER != 0 {
		slot := g.ring[g.at*ringSlot : (g.at+1)*ringSlot]
		length, mac := binary.NativeEndian.Uint32(slot[4:]), binary.NativeEndian.Uint16(slot[12:])
		i, err := l.answer(slot[mac:mac+aoe.DataOffset], int(length), now)
		g.pass()
		switch {
		case err != nil:
			return 0, err
		case i < 0:
		case over:
			left++
		default:
			l.ask(i, now)
		}
	}
	return left, nil
}

// answer takes the head of a frame of n bytes and returns the place of the request that
// it answers, or -1.
func (l *load) answer(b []byte, n int, now time.Time) (int, error) {
	tag := binary.BigEndian.Uint32(b[20:])
	i := int(tag & 0xff)
	if i >= len(l.places) || !l.places[i].busy || l.places[i].tag != tag {
		return -1, nil
	}
	p := &l.places[i]
	if b[14] != aoe.Version<<4|byte(aoe.FlagResponse) || b[27] != aoe.StatusReady || !l.write && n < aoe.DataOffset+l.sectors*512 {
		return -1, fmt.Errorf("answer of %d bytes: % x", n, b)
	}
	p.busy = false
	l.took = append(l.took, now.Sub(p.began))
	return i, nil
}
