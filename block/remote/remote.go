// Package remote is an export of an NBD server as a block.Device.
//
// One connection, many requests in flight, simple replies in any order. Whoever
// submits a request writes it to the socket; one goroutine reads the replies.
//
// # When the connection is lost
//
// The device is then of no more use: every request in flight, and every later
// one, fails with ESHUTDOWN, and Lost is closed. It does not connect again by
// itself. A server that comes back may have forgotten what it had acknowledged
// and not yet flushed; whether that matters only the owner knows.
package remote

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/nbd/wire"
)

const (
	maxInflight   = 128                        // requests at once
	maxPayload    = 32 << 20                   // bytes of one read or write; what every server takes
	maxSectors    = 1<<32/block.SectorSize - 1 // of one discard: its length has 32 bits
	replyBuffer   = 64 << 10
	keepAliveIdle = 15 * time.Second
)

// Device is a connected export. All methods may be called from any goroutine.
type Device struct {
	conn     net.Conn
	flags    uint16
	geometry block.Geometry

	writing sync.Mutex // one request at a time onto the socket
	head    [wire.RequestSize]byte
	vectors [2][]byte

	mu    sync.Mutex
	slots [maxInflight]slot
	free  []uint32 // indices of slots
	room  sync.Cond
	err   error         // why the device is lost
	lost  chan struct{} // closed with err
}

// slot is a request in flight. The cookie is the index, and above it a count that
// a late or invented reply does not have.
type slot struct {
	r     *block.Request
	count uint32
}

// Open connects to the export of an NBD URI (see ParseURI). ctx bounds the
// connecting only. A device that is not opened for reading only must be writable.
func Open(ctx context.Context, uri string, readOnly bool) (*Device, error) {
	where, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: keepAliveIdle}
	conn, err := d.DialContext(ctx, where.Network, where.Address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", uri, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	e, err := wire.Negotiate(conn, where.Export)
	if err == nil {
		err = usable(e, readOnly)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", uri, err)
	}
	if !stop() {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", uri, ctx.Err())
	}
	return newDevice(conn, e, readOnly), nil
}

// usable says what stands against using an export.
func usable(e wire.Export, readOnly bool) error {
	switch {
	case e.Minimum > block.SectorSize:
		return fmt.Errorf("the server insists on blocks of %d bytes", e.Minimum)
	case e.Size < block.SectorSize:
		return fmt.Errorf("the export has %d bytes", e.Size)
	case !readOnly && e.Flags&wire.FlagReadOnly != 0:
		return fmt.Errorf("the export is read-only: %w", syscall.EROFS)
	}
	return nil
}

func newDevice(conn net.Conn, e wire.Export, readOnly bool) *Device {
	d := &Device{conn: conn, flags: e.Flags, lost: make(chan struct{}), geometry: block.Geometry{
		Sectors: e.Size / block.SectorSize, LogicalBlock: block.SectorSize, PhysicalBlock: max(4096, e.Preferred),
		Discard: e.Flags&wire.FlagTrim != 0, ReadOnly: readOnly || e.Flags&wire.FlagReadOnly != 0, Rotational: e.Flags&wire.FlagRotational != 0,
	}}
	d.room.L = &d.mu
	for i := range uint32(maxInflight) {
		d.free = append(d.free, i)
	}
	go d.receive()
	return d
}

// Geometry implements block.Device.
func (d *Device) Geometry() block.Geometry { return d.geometry }

// Lost is closed when the connection is.
func (d *Device) Lost() <-chan struct{} { return d.lost }

// Err says why the device was lost, nil while it is not.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Submit implements block.Device. It waits while maxInflight requests are in flight.
func (d *Device) Submit(r *block.Request) {
	if err := r.Check(d.geometry); err != nil {
		r.Complete(err)
		return
	}
	if len(r.Data) > maxPayload || r.Op != block.Flush && r.Sectors > maxSectors {
		r.Complete(r.Fail(syscall.EINVAL))
		return
	}
	cmd, flags, ok := d.command(r)
	if !ok {
		r.Complete(nil)
		return
	}
	cookie, ok := d.enter(r)
	if !ok {
		r.Complete(r.Fail(syscall.ESHUTDOWN))
		return
	}
	if err := d.send(r, cmd, flags, cookie); err != nil {
		d.fail(err)
	}
}

// command is what r is called on the wire. ok is false where there is nothing to
// do: a server without FLUSH has everything durable that it has acknowledged, and
// a discard is a wish.
func (d *Device) command(r *block.Request) (cmd, flags uint16, ok bool) {
	if r.Flags&block.FUA != 0 && d.flags&wire.FlagFUA != 0 {
		flags |= wire.CmdFlagFUA
	}
	switch r.Op {
	case block.Read:
		return wire.CmdRead, 0, r.Sectors > 0
	case block.Write:
		return wire.CmdWrite, flags, r.Sectors > 0
	case block.Discard:
		return wire.CmdTrim, flags, r.Sectors > 0 && d.flags&wire.FlagTrim != 0
	case block.WriteZeroes:
		// A server that does not have it says so, and the submitter hears it.
		if r.Flags&block.NoHole != 0 {
			flags |= wire.CmdFlagNoHole
		}
		return wire.CmdWriteZeroes, flags, r.Sectors > 0
	default:
		return wire.CmdFlush, 0, d.flags&wire.FlagFlush != 0
	}
}

// enter gives r a slot; it fails when the device is lost.
func (d *Device) enter(r *block.Request) (cookie uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.free) == 0 && d.err == nil {
		d.room.Wait()
	}
	if d.err != nil {
		return 0, false
	}
	i := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	s := &d.slots[i]
	s.r = r
	s.count++
	return uint64(s.count)<<32 | uint64(i), true
}

// leave takes the request with that cookie out; nil if there is none.
func (d *Device) leave(cookie uint64) (r *block.Request) {
	i := uint32(cookie)
	d.mu.Lock()
	defer d.mu.Unlock()
	if i >= maxInflight || d.slots[i].count != uint32(cookie>>32) {
		return nil
	}
	r, d.slots[i].r = d.slots[i].r, nil
	if r != nil {
		d.free = append(d.free, i)
		d.room.Signal()
	}
	return r
}

func (d *Device) send(r *block.Request, cmd, flags uint16, cookie uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	p := d.head[:]
	wire.Request{Flags: flags, Type: cmd, Cookie: cookie, Offset: r.Sector * block.SectorSize, Length: r.Sectors * block.SectorSize}.Put(p)
	d.vectors = [2][]byte{p, nil}
	if cmd == wire.CmdWrite {
		d.vectors[1] = r.Data
	}
	bufs := net.Buffers(d.vectors[:])
	_, err := bufs.WriteTo(d.conn)
	return err
}

// receive reads replies until the connection ends.
func (d *Device) receive() {
	rd := bufio.NewReaderSize(d.conn, replyBuffer)
	for {
		if err := d.reply(rd); err != nil {
			d.fail(err)
			return
		}
	}
}

// reply reads one reply and completes its request.
func (d *Device) reply(rd *bufio.Reader) error {
	var p [wire.SimpleReplySize]byte
	if _, err := io.ReadFull(rd, p[:]); err != nil {
		return err
	}
	cookie, code := binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint32(p[4:])
	if m := binary.BigEndian.Uint32(p[:]); m != wire.MagicSimpleReply {
		return fmt.Errorf("reply with magic 0x%x", m)
	}
	r := d.leave(cookie) // from here on nobody else completes it
	if r == nil {
		return fmt.Errorf("reply with cookie 0x%x to no request", cookie)
	}
	if r.Op == block.Read && code == 0 {
		if _, err := io.ReadFull(rd, r.Data); err != nil {
			r.Complete(r.Fail(syscall.ESHUTDOWN))
			return err
		}
	}
	if code != 0 {
		r.Complete(r.Fail(errno(code)))
		return nil
	}
	if r.Flags&block.FUA != 0 && r.Op.Modifies() && d.flags&(wire.FlagFUA|wire.FlagFlush) == wire.FlagFlush {
		d.flushAfter(r)
		return nil
	}
	r.Complete(nil)
	return nil
}

// errno translates the error of a reply.
func errno(code uint32) syscall.Errno {
	switch e := syscall.Errno(code); e {
	case syscall.EPERM:
		return syscall.EROFS
	case syscall.EIO, syscall.EINVAL, syscall.ENOSPC:
		return e
	case wire.ENOTSUP:
		return syscall.EOPNOTSUPP
	case wire.ESHUTDOWN:
		return syscall.ESHUTDOWN
	default:
		return syscall.EIO
	}
}

// flushAfter completes r when a flush that was begun after it is done: a server
// without FUA is made to keep the promise in two steps. It does not run on the
// goroutine of the replies, which the flush needs.
func (d *Device) flushAfter(r *block.Request) {
	go func() {
		if err := block.FlushAll(d); err != nil {
			r.Complete(r.Fail(block.Errno(err)))
			return
		}
		r.Complete(nil)
	}()
}

// fail gives the connection up.
func (d *Device) fail(err error) {
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return
	}
	d.err = err
	var all []*block.Request
	for i := range d.slots {
		if r := d.slots[i].r; r != nil {
			all, d.slots[i].r = append(all, r), nil
		}
	}
	d.room.Broadcast()
	d.mu.Unlock()
	_ = d.conn.Close()
	close(d.lost)
	for _, r := range all {
		r.Complete(r.Fail(syscall.ESHUTDOWN))
	}
}

// Close leaves the server in order. What is in flight fails.
func (d *Device) Close() error {
	d.writing.Lock()
	_ = d.conn.SetWriteDeadline(time.Now().Add(time.Second))
	p := make([]byte, wire.RequestSize)
	wire.Request{Type: wire.CmdDisc}.Put(p)
	_, err := d.conn.Write(p)
	d.writing.Unlock()
	d.fail(net.ErrClosed)
	return err
}
