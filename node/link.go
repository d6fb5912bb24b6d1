package node

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// farewellTime is how long an orderly end may take.
const farewellTime = 250 * time.Millisecond

// link is one established connection: a generation, in the core's words. It lives
// from EvConnUp to EvConnDown and never comes back.
//
// Its end has an order: somebody calls fail, which closes the sockets; that makes
// the readers and writers return; then what is queued is dropped; and only then,
// when nothing refers to the memory of a Send any more, EvConnDown is delivered.
type link struct {
	loop *loop
	bufs *buffers
	sums *digests
	gen  uint32
	pair *transport.Pair
	out  [3]*transport.Writer // by socket
	sent [3]bool              // by socket: something was queued. Owned by the runner

	readers sync.WaitGroup
	meta    chan struct{} // closed when the meta socket is read no more
	once    sync.Once
	failed  chan struct{} // closed by fail
	over    atomic.Bool   // set by fail
	cause   state.Conn    // set by fail before failed is closed
	err     error         // likewise; nil if the core asked for the end
}

func newLink(l *loop, bufs *buffers, sums *digests, gen uint32, pair *transport.Pair) *link {
	k := &link{loop: l, bufs: bufs, sums: sums, gen: gen, pair: pair, failed: make(chan struct{}), meta: make(chan struct{})}
	k.out[replication.DataSocket] = transport.NewWriter(pair.Data, k.done, k.writeFailed)
	k.out[replication.MetaSocket] = transport.NewWriter(pair.Meta, k.done, k.writeFailed)
	return k
}

// start begins to read. EvConnUp must be in the mailbox.
func (k *link) start() {
	k.readers.Add(2)
	go k.read(k.pair.Data, replication.DataSocket)
	go k.read(k.pair.Meta, replication.MetaSocket)
}

// fail ends the link. The first cause counts; err is nil if the core asked for it. It
// does not wait and may be called by anyone, the runner included.
func (k *link) fail(cause state.Conn, err error) {
	k.once.Do(func() {
		k.cause, k.err = cause, err
		k.over.Store(true)
		if err != nil {
			k.pair.Close()
		}
		close(k.failed)
	})
}

func (k *link) writeFailed(err error) { k.fail(writeCause(err), err) }

// wait returns when the link has ended and nothing refers to it any more.
func (k *link) wait() {
	<-k.failed
	k.loop.wakeReaders()
	if k.err == nil {
		k.farewell()
	}
	k.readers.Wait()
	k.pair.Close()
	k.out[replication.DataSocket].Close()
	k.out[replication.MetaSocket].Close()
}

// farewell lets what is queued reach the peer, for a moment, because the last packets
// say why the connection ends. The readers go on reading meanwhile: a socket that is
// closed with unread data resets the connection, and that destroys what the peer has
// not read.
func (k *link) farewell() {
	end := time.AfterFunc(farewellTime, k.pair.Close)
	defer func() {
		k.readers.Wait()
		end.Stop()
	}()
	for _, w := range k.out[replication.DataSocket:] {
		for began := time.Now(); w.Pending() > 0 && time.Since(began) < farewellTime; {
			time.Sleep(farewellTime / 50)
		}
	}
	_ = k.pair.Data.CloseWrite() // the peer sees the end, or Close follows
	_ = k.pair.Meta.CloseWrite()
}

// queue appends a packet to a socket. Runner only.
func (k *link) queue(sock replication.Socket, head, payload []byte, tag transport.Tag) {
	k.out[sock].Queue(head, payload, tag)
	k.sent[sock] = true
}

// flush starts to write what queue appended since the last flush. Runner only.
func (k *link) flush() {
	for sock := range k.sent {
		if k.sent[sock] {
			k.sent[sock] = false
			k.out[sock].Flush()
		}
	}
}

// done is called by a writer for every packet with a tag.
func (k *link) done(t transport.Tag, ok bool) {
	if t.Buf != 0 {
		k.bufs.release(replication.BufID(t.Buf))
	}
	if t.Notify && ok {
		k.loop.put(&replication.Event{Kind: replication.EvSent, Gen: k.gen, Token: t.Token})
		// Usually the runner itself is here and will see it. If it is the
		// writer's goroutine, it has a socket to serve.
		k.loop.relieve()
	}
}

// read delivers the packets of one socket until it breaks. All packets that one read
// picked up go to the mailbox before this goroutine runs the core.
func (k *link) read(s transport.Socket, sock replication.Socket) {
	defer k.readers.Done()
	defer k.drain(s)
	if sock == replication.MetaSocket {
		defer close(k.meta)
	}
	r := incoming{Reader: transport.NewReader(s)}
	for {
		room := k.loop.waitRoom(sock, k.over.Load)
		if room == 0 {
			return
		}
		for n := 0; n < room && (n == 0 || r.Buffered()); n++ {
			if err := k.next(&r, sock); err != nil {
				k.loop.kick()
				k.lastWords(sock, err)
				k.fail(readCause(sock, err), err)
				return
			}
		}
		k.loop.kick()
	}
}

// lastWords waits a moment, when the peer has closed the data socket, for what it has sent
// on the other one before: the answer to a disconnect above all.
func (k *link) lastWords(sock replication.Socket, err error) {
	if sock != replication.DataSocket || !errors.Is(err, io.EOF) {
		return
	}
	select {
	case <-k.meta:
	case <-k.failed:
	case <-time.After(farewellTime):
	}
}

// drain reads what nobody wants any more, until the peer or farewell closes the socket.
func (k *link) drain(s transport.Socket) {
	if k.over.Load() && k.err == nil {
		_, _ = io.Copy(io.Discard, s)
	}
}

// incoming is a socket's stream of packets. Data is checked against its digest here, on
// the reader's goroutine.
type incoming struct {
	*transport.Reader
	integrity wire.Algorithm // data-integrity-alg of the peer
}

// follow looks for the packets that name the peer's data-integrity-alg. What they say
// holds from the very next packet on.
func (r *incoming) follow(p *transport.Packet) {
	if p.Command != wire.CmdProtocol && p.Command != wire.CmdProtocolUpdate {
		return
	}
	var c wire.Protocol
	rd := wire.NewReader(p.Command, p.Body)
	c.DecodeFrom(&rd, wire.Session{Version: wire.VersionMax})
	if rd.Finish() == nil {
		r.integrity = wire.AlgorithmOf(c.IntegrityAlg)
		r.DigestSize = r.integrity.Size()
	}
}

// corrupt says whether the data of a packet differs from its digest.
func (r *incoming) corrupt(p *transport.Packet, sums *digests) bool {
	if r.integrity == 0 || len(p.Bulk) == 0 {
		return false
	}
	var sum [wire.MaxDigestSize]byte
	return !bytes.Equal(sums.sum(sum[:0], r.integrity, p.Bulk), p.Body[len(p.Body)-r.DigestSize:])
}

// next moves one packet from r to the mailbox.
func (k *link) next(r *incoming, sock replication.Socket) error {
	ev := replication.Event{Kind: replication.EvPacket, Gen: k.gen, Socket: sock}
	p, err := r.Next(func(n int) []byte {
		var b []byte
		ev.Buf, b = k.bufs.alloc(n)
		return b
	})
	if err != nil {
		if ev.Buf != 0 {
			k.bufs.release(ev.Buf)
		}
		return err
	}
	r.follow(&p)
	ev.Cmd, ev.Vol, ev.Body, ev.Size = p.Command, p.Volume, p.Body, uint32(len(p.Bulk))
	ev.Corrupt = r.corrupt(&p, k.sums)
	k.loop.put(&ev)
	return nil
}

// readCause is the state that a connection falls into when reading fails. The
// kernel distinguishes the sockets the same way.
func readCause(sock replication.Socket, err error) state.Conn {
	var packet *wire.PacketError
	switch {
	case errors.As(err, &packet):
		return state.ProtocolError
	case errors.Is(err, unix.ETIMEDOUT):
		return state.Timeout
	case sock == replication.MetaSocket && !errors.Is(err, io.ErrUnexpectedEOF):
		return state.NetworkFailure
	default:
		return state.BrokenPipe
	}
}

func writeCause(err error) state.Conn {
	if errors.Is(err, unix.ETIMEDOUT) {
		return state.Timeout
	}
	return state.BrokenPipe
}
