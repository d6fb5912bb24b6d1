package nbd

import (
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors bounds one writev; a reply takes one or two vectors.
const maxVectors = 128

// maxGather bounds what is copied to be sent at once without writev: a TLS record.
const maxGather = 16 << 10

// out is the sending side of a connection: a queue of finished jobs and a role,
// the writer, that exactly one goroutine has while there is something to send.
// Whoever finds the role free takes it, so at low depth a reply costs no
// hand-off, and at high depth one writev carries everything that has collected.
type out struct {
	c *conn

	// Guarded by conn.mu.
	head, tail *job
	writing    bool

	// Owned by the writer.
	batch  *job // jobs that the vectors belong to
	iov    []unix.Iovec
	pos    int // first vector not sent yet
	err    error
	stream io.Writer // where there is no writev: TLS, and pipes in tests
	gather []byte    // for stream: small vectors that go out together

	wake     chan struct{} // passes the role to loop
	tryFn    func(fd uintptr) bool
	finishFn func(fd uintptr) bool
}

func (o *out) init(c *conn) {
	o.c = c
	o.iov = make([]unix.Iovec, 0, maxVectors)
	switch {
	case c.tls != nil:
		o.stream = c.tls
	case c.raw == nil:
		o.stream = c.sock
	}
	o.wake = make(chan struct{}, 1)
	o.tryFn = func(fd uintptr) bool { o.writev(fd); return true }
	o.finishFn = func(fd uintptr) bool { return o.writev(fd) }
}

// send queues the sealed jobs from head to tail and sends what it can without
// blocking. It may be called from any goroutine.
func (c *conn) send(head, tail *job) {
	o := &c.out
	tail.next = nil
	c.mu.Lock()
	if o.head == nil {
		o.head = head
	} else {
		o.tail.next = head
	}
	o.tail = tail
	mine := !o.writing
	o.writing = true
	c.mu.Unlock()
	if mine && !o.run(false) {
		o.wake <- struct{}{} // never blocks: only the owner of the role sends
	}
}

// loop is the goroutine that takes over when the socket is full.
func (o *out) loop() {
	for range o.wake {
		o.run(true)
	}
}

// run sends until the queue is empty and gives up the role. If it may not block
// and the socket is full, it returns false and keeps the role.
func (o *out) run(block bool) bool {
	for {
		if o.batch == nil && !o.take() {
			return true
		}
		if !o.write(block) {
			return false
		}
		o.dispose()
	}
}

// take frees the jobs of the last batch and makes the next one. It returns false,
// and gives up the role, if there is nothing to send.
func (o *out) take() bool {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.head == nil {
		o.writing = false
		return false
	}
	o.batch = o.head
	o.iov, o.pos = o.iov[:0], 0
	var last *job
	for j := o.head; j != nil && len(o.iov)+2 <= maxVectors; j = j.next {
		o.add(j.head[:j.nhead])
		if len(j.data) > 0 {
			o.add(j.data)
		}
		last = j
	}
	o.head = last.next
	last.next = nil
	if c.broken {
		o.pos = len(o.iov)
	}
	return true
}

func (o *out) add(p []byte) {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	o.iov = append(o.iov, v)
}

// dispose frees the jobs that were sent.
func (o *out) dispose() {
	c := o.c
	for j := o.batch; j != nil; j = j.next {
		j.dispose()
	}
	c.mu.Lock()
	for j := o.batch; j != nil; {
		next := j.next
		c.release(j)
		j = next
	}
	o.batch = nil
	c.mu.Unlock()
}

// write sends the rest of the batch. It returns false if it may not block and
// would have to. After an error the batch counts as sent: there is nobody to
// send it to.
func (o *out) write(block bool) bool {
	if o.pos == len(o.iov) {
		return true
	}
	o.err = nil
	switch {
	case o.stream != nil && !block:
		return false
	case o.stream != nil:
		o.writeStream()
	case block:
		o.join(o.c.raw.Write(o.finishFn))
	default:
		o.join(o.c.raw.Write(o.tryFn))
	}
	if o.err != nil {
		o.c.fail()
		return true
	}
	return o.pos == len(o.iov)
}

func (o *out) join(err error) {
	if o.err == nil {
		o.err = err
	}
}

// writeStream sends the rest of the batch in order. What is small goes out with
// its neighbours: each Write is a TLS record of its own.
func (o *out) writeStream() {
	for ; o.pos < len(o.iov); o.pos++ {
		v := &o.iov[o.pos]
		p := unsafe.Slice(v.Base, v.Len)
		if len(o.gather)+len(p) > maxGather {
			o.flushGathered()
		}
		if len(p) > maxGather {
			o.writeOut(p)
		} else {
			o.gather = append(o.gather, p...)
		}
	}
	o.flushGathered()
}

func (o *out) flushGathered() {
	if len(o.gather) > 0 {
		o.writeOut(o.gather)
		o.gather = o.gather[:0]
	}
}

func (o *out) writeOut(p []byte) {
	if o.err == nil {
		_, o.err = o.stream.Write(p)
	}
}

// writev sends until everything is sent, an error occurs (true), or the socket
// is full (false).
func (o *out) writev(fd uintptr) bool {
	for o.pos < len(o.iov) {
		rest := o.iov[o.pos:]
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		switch errno {
		case 0:
			o.advance(uint64(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			o.err = errno
			return true
		}
	}
	return true
}

// advance skips n sent bytes.
func (o *out) advance(n uint64) {
	for n > 0 {
		v := &o.iov[o.pos]
		if n < v.Len {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.Len -= n
			return
		}
		n -= v.Len
		o.pos++
	}
}
