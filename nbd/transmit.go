package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/nbd/wire"
)

const (
	// A batch of replies is sent at the latest when it has this many requests
	// or bytes, or when a request took longer than batchTime: the client should
	// not be idle while the server works.
	batchJobs  = 16
	batchBytes = 64 << 10
	batchTime  = 50 * time.Microsecond
)

// batch is the list of replies that the reader has not sent yet.
type batch struct {
	head, tail *job
	jobs       int
	bytes      int
}

// transmit reads and submits requests. It returns nil when the client is done:
// after DISC, a clean end of the stream, or a stop.
func (c *conn) transmit() error {
	var b batch
	for {
		p, err := c.rd.next(wire.RequestSize)
		if err != nil {
			c.sendBatch(&b)
			return c.ended(err)
		}
		if m := binary.BigEndian.Uint32(p); m != wire.MagicRequest {
			c.sendBatch(&b)
			return &ProtocolError{"request magic", uint64(m)}
		}
		r := request{
			flags:  binary.BigEndian.Uint16(p[4:]),
			typ:    binary.BigEndian.Uint16(p[6:]),
			cookie: binary.BigEndian.Uint64(p[8:]),
			offset: binary.BigEndian.Uint64(p[16:]),
			length: binary.BigEndian.Uint32(p[24:]),
		}
		if r.typ == wire.CmdDisc {
			c.sendBatch(&b)
			return nil
		}
		if err := c.request(r, &b); err != nil {
			c.sendBatch(&b)
			return c.ended(err)
		}
		if c.rd.buffered() < wire.RequestSize || b.jobs >= batchJobs || b.bytes >= batchBytes {
			c.sendBatch(&b)
		}
	}
}

// errStopped leaves the loop of a connection that was told to stop.
var errStopped = errors.New("connection stopped")

// ended says whether the end of reading is a fault of the client.
func (c *conn) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, errStopped) || c.stopping.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// sendBatch hands the collected replies to the reply queue.
func (c *conn) sendBatch(b *batch) {
	if b.jobs > 0 {
		c.send(b.head, b.tail)
		*b = batch{}
	}
}

func (b *batch) add(j *job) {
	if b.head == nil {
		b.head = j
	} else {
		b.tail.next = j
	}
	b.tail = j
	b.jobs++
	b.bytes += len(j.data)
}

// request serves one decoded request; for a write it reads the payload. An
// error ends the connection.
func (c *conn) request(r request, b *batch) error {
	x := c.ses.export
	g := x.geometry(c.ses.device)
	errno := r.check(g, c.ses)
	if int(r.typ) < wire.Commands {
		x.stats.requests[r.typ].Add(1)
	}
	n := 0
	if errno == 0 {
		n = r.payload()
	}
	// Replies must not wait for the network.
	if b.jobs > 0 && r.typ == wire.CmdWrite && c.rd.buffered() < int(r.length) {
		c.sendBatch(b)
	}
	j, stalled := c.acquire(n, b)
	if j == nil {
		return errStopped
	}
	j.set(r, errno)
	if err := c.receive(j, r, n); err != nil {
		c.abandon(j)
		return err
	}
	if errno != 0 || r.done() {
		j.seal()
		b.add(j)
		return nil
	}
	if !c.mayExecute(&r, stalled, b) {
		c.abandon(j)
		return errStopped
	}
	c.submit(j, b)
	return nil
}

// receive allocates the memory of a request, and for a write fills it. A
// refused write's payload is skipped, so that the next header is found.
func (c *conn) receive(j *job, r request, n int) error {
	if r.typ == wire.CmdWrite && j.errno != 0 {
		if r.length > maxPayloadSkip {
			return &ProtocolError{"write length", uint64(r.length)}
		}
		return c.rd.skip(int64(r.length))
	}
	if n == 0 {
		return nil
	}
	j.buf = buffer.Get(n)
	if r.typ == wire.CmdWrite {
		c.ses.export.stats.writeBytes.Add(uint64(n))
		return c.rd.full(j.buf.B)
	}
	if r.typ == wire.CmdBlockStatus {
		j.buf.B = r.extents(j.buf.B[:0], c.ses.device)
		return nil
	}
	c.ses.export.stats.readBytes.Add(uint64(n))
	return nil
}

// mayExecute holds back a modification while a fence is up, and refuses
// everything once the client may have given up on this connection.
func (c *conn) mayExecute(r *request, stalled bool, b *batch) bool {
	x := c.ses.export
	if r.modifies() && x.draining.Load() > 0 {
		stalled = true
		c.sendBatch(b)
		if !x.passFence(c) {
			return false
		}
	}
	return !stalled || !c.hungUp()
}

// submit passes the job to the device.
func (c *conn) submit(j *job, b *batch) {
	j.prepare()
	if c.rd.buffered() >= wire.RequestSize {
		j.req.Flags |= block.More
	}
	start := time.Now()
	c.ses.device.Submit(&j.req)
	took := time.Since(start)
	if j.phase.Swap(phaseReturned) == phaseDone {
		j.seal()
		b.add(j)
	}
	if took > batchTime {
		c.sendBatch(b)
	}
	if took > stallLimit && c.hungUp() {
		c.stop()
	}
}
