package transport

import "sync"

// Tag tells the owner of a Writer what a packet was when it is finished with.
// Its contents mean nothing here.
type Tag struct {
	Buf    uint32 // buffer to give back
	Token  uint64 // echoed when the packet was handed to the kernel
	Notify bool   // report it
}

func (t Tag) set() bool { return t.Buf != 0 || t.Notify }

// Writer queues the packets of one socket and writes them in order, all that are
// queued in one system call.
//
// The usual case costs no change of goroutine: Flush writes on the caller's, and
// takes what the kernel takes without waiting. Only what is left goes to the
// writer's own goroutine, which then owns the socket until the queue is empty;
// meanwhile Flush does nothing. So Queue and Flush never wait for the peer, and
// the order on the socket is the order of the Queue calls.
type Writer struct {
	sock Socket
	sent func(t Tag, ok bool)
	fail func(error)

	mu     sync.Mutex
	wake   *sync.Cond // on mu: owned or closed changed
	queue  packets    // guarded by mu
	owned  bool       // the goroutine writes; guarded by mu
	closed bool       // guarded by mu
	bytes  int        // guarded by mu: queued and not yet taken by the kernel

	flushTags []Tag // owned by Flush's caller

	work     packets // owned by the goroutine
	workTags []Tag   // owned by the goroutine
	done     chan struct{}
}

// packets is a queue of packets: heads in one arena, payloads by reference.
type packets struct {
	items []packet
	arena []byte
	first int // items before it are written
	off   int // bytes of items[first] that are written
	bufs  [][]byte
}

type packet struct {
	off, len int // of the head in the arena
	payload  []byte
	tag      Tag
}

// NewWriter starts a writer. sent is called for every packet with a tag when the
// kernel has it (ok) or when it was dropped (not ok); fail once, when the socket
// breaks. Both are called without locks held, from the goroutine of whoever calls
// Flush or from the writer's own, and must not wait.
func NewWriter(s Socket, sent func(t Tag, ok bool), fail func(error)) *Writer {
	w := &Writer{sock: s, sent: sent, fail: fail, done: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	go w.run()
	return w
}

// Queue appends a packet. head is copied; payload must stay as it is until the
// tag is reported or, without a tag, until Close has returned or the peer has
// answered the packet. A closed writer drops it at once.
func (w *Writer) Queue(head, payload []byte, tag Tag) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		if tag.set() {
			w.sent(tag, false)
		}
		return
	}
	w.queue.add(head, payload, tag)
	w.bytes += len(head) + len(payload)
	w.mu.Unlock()
}

// Pending returns the number of bytes that the kernel has not taken.
func (w *Writer) Pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// Flush starts to write what is queued. It does not wait. One caller at a time.
func (w *Writer) Flush() {
	w.mu.Lock()
	if w.closed || w.owned || w.queue.empty() {
		w.mu.Unlock()
		return
	}
	// The lock is held over a system call that does not wait: nobody else
	// wants it but Queue (the same caller) and Close.
	n, err := w.queue.write(w.sock.TryWrite)
	w.bytes -= n
	from, to := w.queue.advance(n)
	if err == nil && !w.queue.empty() {
		w.owned = true
		w.wake.Signal()
	}
	w.flushTags = w.queue.collect(w.flushTags[:0], from, to)
	if w.queue.empty() {
		w.queue.reset()
	}
	w.mu.Unlock()
	w.report(w.flushTags, true)
	if err != nil {
		w.fail(err)
	}
}

// run is the writer's goroutine.
func (w *Writer) run() {
	defer close(w.done)
	w.mu.Lock()
	for {
		for !w.owned && !w.closed {
			w.wake.Wait()
		}
		if w.closed {
			w.mu.Unlock()
			return
		}
		w.work, w.queue = w.queue, w.work
		w.mu.Unlock()
		err := w.writeAll()
		w.mu.Lock()
		if err != nil {
			w.closed = true
			w.mu.Unlock()
			w.fail(err)
			return
		}
		w.work.reset()
		if w.queue.empty() {
			w.owned = false
		}
	}
}

// writeAll writes w.work, waiting for the peer as long as it takes.
func (w *Writer) writeAll() error {
	for !w.work.empty() {
		n, err := w.work.write(w.sock.WaitWrite)
		from, to := w.work.advance(n)
		w.mu.Lock()
		w.bytes -= n
		w.mu.Unlock()
		w.workTags = w.work.collect(w.workTags[:0], from, to)
		w.report(w.workTags, true)
		if err != nil {
			return err
		}
	}
	return nil
}

// Close drops what is queued and waits for the writer's goroutine, so the socket
// must have been closed. When it returns no packet's memory is referred to.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.done

	w.mu.Lock()
	dropped := w.work.collect(nil, w.work.first, len(w.work.items))
	dropped = w.queue.collect(dropped, w.queue.first, len(w.queue.items))
	w.work, w.queue, w.bytes = packets{}, packets{}, 0
	w.mu.Unlock()
	w.report(dropped, false)
}

func (w *Writer) report(tags []Tag, ok bool) {
	for _, t := range tags {
		w.sent(t, ok)
	}
}

// collect appends the tags of items from..to to tags and forgets their payloads.
func (q *packets) collect(tags []Tag, from, to int) []Tag {
	for i := from; i < to; i++ {
		if q.items[i].tag.set() {
			tags = append(tags, q.items[i].tag)
		}
		q.items[i].payload = nil
	}
	return tags
}

func (q *packets) empty() bool { return q.first == len(q.items) }

func (q *packets) reset() {
	q.items, q.arena, q.first, q.off = q.items[:0], q.arena[:0], 0, 0
}

func (q *packets) add(head, payload []byte, tag Tag) {
	q.items = append(q.items, packet{off: len(q.arena), len: len(head), payload: payload, tag: tag})
	q.arena = append(q.arena, head...)
}

// write calls fn with the rest of the queue, or as much of it as one system call
// takes.
func (q *packets) write(fn func([][]byte) (int, error)) (int, error) {
	bufs, skip := q.bufs[:0], q.off
	// Heads without payload between them lie side by side in the arena and
	// become one piece.
	start, end := -1, -1
	for i := q.first; i < len(q.items) && len(bufs) < maxIovecs-2; i++ {
		it := &q.items[i]
		if start < 0 {
			start = it.off
		}
		end = it.off + it.len
		if len(it.payload) > 0 {
			bufs = append(bufs, q.arena[start:end], it.payload)
			start = -1
		}
	}
	if start >= 0 {
		bufs = append(bufs, q.arena[start:end])
	}
	q.bufs = bufs
	n, err := fn(trim(bufs, skip))
	clear(q.bufs)
	return n, err
}

// trim removes the first n bytes of bufs.
func trim(bufs [][]byte, n int) [][]byte {
	for n > 0 {
		if n < len(bufs[0]) {
			bufs[0] = bufs[0][n:]
			break
		}
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	return bufs
}

// advance notes that n more bytes are written, and returns the range of items
// that are now finished.
func (q *packets) advance(n int) (from, to int) {
	from = q.first
	q.off += n
	for q.first < len(q.items) {
		it := &q.items[q.first]
		size := it.len + len(it.payload)
		if q.off < size {
			break
		}
		q.off -= size
		q.first++
	}
	return from, q.first
}
