package aoe

import (
	"syscall"
	"time"

	"github.com/replblk/replblk/block"
)

// call is one request from admission to its end, which is reply or drop and
// comes exactly once; the call is recycled then and must not be touched. It is
// owned by whoever runs it: the receiving goroutine, the device, the target's
// goroutine. Fields marked so are guarded by Target.mu.
type call struct {
	target    *Target
	frame     *Frame
	sender    Sender
	initiator *Initiator
	period    uint64 // serving period of arrival
	hdr       Header
	ata       ATA
	kind      ataKind
	reserved  bool   // the source is not in the reserve list
	burst     *burst // of the receiver that the call came through, may be nil
	tally     *tally // that counts the answer, may be nil
	good      bool   // the answer is that of a command completed well

	req  block.Request
	done func(*block.Request) // c.completed, made once per call

	next    uint64  // sector after those of req
	left    uint32  // sectors after those of req: a verification goes in parts
	waits   int     // guarded: earlier overlapping calls in the queue
	after   []*call // guarded: later overlapping calls that wait for this one
	at      int     // guarded: place in queue.running
	inQueue bool    // guarded: has a place
}

func newCall(t *Target) *call {
	c := &call{target: t}
	c.done = func(*block.Request) { t.completed(c) }
	return c
}

// maxSectors is how many sectors a frame can carry to or from the sender.
func (c *call) maxSectors() int {
	room := min(c.sender.MTU()+EthernetLen, len(c.frame.buf))
	return min((room-DataOffset)/block.SectorSize, 255)
}

// drop ends the call without an answer.
func (c *call) drop(r DropReason) {
	c.target.counters.drop(r)
	c.initiator.Counters.drop(r)
	c.frame.Release()
	c.end()
}

// malformed ends a call whose frame was cut short or asks for the impossible.
// It will be as wrong the next time, so it is answered with an error.
func (c *call) malformed() {
	c.countMalformed()
	c.fail(ErrArgument)
}

func (c *call) countMalformed() {
	c.target.counters.Malformed.Add(1)
	c.initiator.Counters.Malformed.Add(1)
}

// fail answers with an AoE error. The argument is what the request had.
func (c *call) fail(code ErrorCode) {
	c.failList(code, max(HeaderLen, min(c.frame.n, DataOffset)))
}

// failList answers with an AoE error and the first n bytes of the frame, whose
// argument is in place: it tells what stands against the request.
func (c *call) failList(code ErrorCode, n int) {
	c.target.counters.AoEErrors.Add(1)
	c.initiator.Counters.AoEErrors.Add(1)
	c.hdr.Flags, c.hdr.Error = FlagError, code
	c.send(n)
}

// replyList answers a mask or reserve command, or one that sets the config string, with a
// frame of n bytes, when what it says is safe.
func (c *call) replyList(n int) {
	c.target.counters.Other.Add(1)
	c.initiator.Counters.Other.Add(1)
	c.target.replyShared(c, n)
}

// replyATA answers without data. errBits of zero is success.
func (c *call) replyATA(a *ATA, errBits uint8) {
	if errBits == 0 {
		a.Count = 0
	}
	c.sendATA(a, errBits, 0)
}

// replyATAKeep answers with success and the count register as it is.
func (c *call) replyATAKeep(a *ATA) { c.sendATA(a, 0, 0) }

// replyATAData answers with success and n bytes that are in place.
func (c *call) replyATAData(a *ATA, n int) {
	a.Count = 0
	c.sendATA(a, 0, n)
}

func (c *call) sendATA(a *ATA, errBits uint8, n int) {
	a.Feature, a.Command = errBits, StatusReady
	if errBits != 0 {
		a.Command |= StatusError
		c.target.counters.ATAErrors.Add(1)
		c.initiator.Counters.ATAErrors.Add(1)
	}
	c.good = errBits == 0
	a.put(c.frame.buf[HeaderLen:])
	c.reply(DataOffset + n)
}

// reply answers with the first n bytes of the frame, whose argument is in place.
func (c *call) reply(n int) {
	c.hdr.Flags, c.hdr.Error = 0, 0
	c.send(n)
}

// send completes the header and sends, unless the serving period has ended:
// by now another node may have answered differently.
func (c *call) send(size int) {
	if c.target.period.Load() != c.period {
		c.drop(DropNotServing)
		return
	}
	h := &c.hdr
	h.Dst, h.Src = h.Src, c.sender.Addr()
	h.Version, h.Shelf, h.Slot = Version, c.target.shelf, c.target.slot
	h.Flags |= FlagResponse
	h.put(c.frame.buf)
	c.frame.finish(size)
	var one tally
	n := c.tally
	if n == nil {
		n, one.now = &one, time.Now()
	}
	n.add(c)
	c.sender.Send(c.frame)
	c.recycle()
	one.flush() // last: Drain returns when nothing is in flight
}

// end recycles the call, which is not in flight any more then.
func (c *call) end() {
	t := c.target
	c.initiator.Counters.InFlight.Add(-1)
	c.recycle()
	t.counters.InFlight.Add(-1) // last: Drain returns when this reaches zero
}

// recycle makes the call available to others. It is in flight until its tally is flushed.
func (c *call) recycle() {
	kept := c.burst != nil && c.burst.keep(c)
	c.frame, c.sender, c.initiator, c.burst, c.tally, c.good = nil, nil, nil, nil, nil, false
	c.req = block.Request{}
	c.kind, c.left = ataAbort, 0
	if !kept {
		c.target.calls.Put(c)
	}
}

// errorBits returns what to answer for a failed request, or false for silence.
func errorBits(op block.Op, err error) (uint8, bool) {
	switch block.Errno(err) {
	case syscall.EAGAIN, syscall.EBUSY, syscall.ECANCELED, syscall.ESHUTDOWN, syscall.ENODEV:
		return 0, false // not now; the initiator comes back
	case syscall.EROFS, syscall.EINVAL:
		return ATAAbort, true
	default:
	}
	if op == block.Read {
		return ATAUncorrectable, true
	}
	return ATAAbort, true
}
