package aoe

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/replblk/replblk/block/mem"
)

// FuzzSession gives a target a sequence of requests of three stations: reads and writes,
// edits of the lists, frames cut short, copies of old frames, times of silence. A model
// that is written from the format knows the lists and the data: what is answered, what is
// read, and that nobody from outside the lists has changed a byte.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0, 0, 3, 7, 1, 0, 3, 0})                                            // write, read
	f.Add([]byte{2, 0, 1, 0, 0, 1, 3, 9, 1, 1, 3, 0, 2, 1, 2, 1, 0, 1, 3, 8})        // reserve for 0, others write, force, write
	f.Add([]byte{3, 0, 1, 0, 0, 1, 3, 9, 0, 0, 3, 5, 3, 0, 0, 1, 0, 1, 3, 9})        // mask
	f.Add([]byte{0, 0, 1, 1, 5, 0, 4, 40, 6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 2, 2, 7, 0}) // short, again, silence
	f.Fuzz(func(t *testing.T, script []byte) {
		m := &sessionModel{serving: true, data: make([]byte, 16*512)}
		w, dev := newWire(1500), mem.NewVolatile(16)
		tg := newTestTarget(t, dev, func(o *Options) { o.Commit = CommitNone })
		for tag := uint32(1); len(script) >= 4 && tag < 500; script, tag = script[4:], tag+1 {
			op := [4]byte(script)
			if op[0]%8 == 7 {
				m.serving = !m.serving
				tg.SetServing(m.serving)
				continue
			}
			b := m.frame(op, tag)
			want, data := m.expect(b)
			w.give(tg, b)
			if tg.Counters().InFlight.Load() > 0 { // a long verification goes in parts
				if err := tg.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			m.compare(t, w, b, want, data)
		}
		if !bytes.Equal(dev.Contents(), m.data) {
			t.Fatal("the device does not hold what was written from inside the lists")
		}
		if n, c := w.pool.Outstanding(), tg.Counters(); n != 0 || c.InFlight.Load() != 0 {
			t.Fatalf("%d frames lost, %d in flight", n, c.InFlight.Load())
		}
		if n := m.given - accounted(tg.Counters()); n != 0 {
			t.Fatalf("%d of %d frames are in no counter", n, m.given)
		}
	})
}

// accounted is how many frames were answered, or dropped for a reason.
func accounted(c *Counters) uint64 {
	n := c.Responses.Load()
	for _, r := range DropReasons() {
		n += c.Drops(r)
	}
	return n
}

// What a frame is answered with.
const (
	answerNone = iota
	answerGood // neither an AoE nor an ATA error
	answerReserved
	answerAny // an error of some kind, or a list
)

type sessionModel struct {
	serving       bool
	mask, reserve []MAC
	data          []byte
	last          []byte
	given         uint64
}

var sessionMACs = []MAC{clientMAC, otherMAC, {2, 0, 0, 0, 0, 9}}

// frame builds a request from four bytes: kind, source, and two that depend on the kind.
func (m *sessionModel) frame(op [4]byte, tag uint32) []byte {
	h := Header{Dst: serverMAC, Src: sessionMACs[op[1]%3], Version: 1, Shelf: 7, Slot: 3, Tag: tag}
	lba, n := uint64(op[2]%20), op[3]%2+1 // some are beyond the end
	var b []byte
	switch op[0] % 8 {
	case 0:
		a := ATA{Flags: ATAFlagExt | ATAFlagWrite, Command: ATAWriteExt, Count: n, LBA: lba}
		b = append(a.AppendTo(h.AppendTo(nil)), bytes.Repeat([]byte{op[3]}, int(n)*512)...)
	case 1:
		b = (&ATA{Flags: ATAFlagExt, Command: ATAReadExt, Count: n, LBA: lba}).AppendTo(h.AppendTo(nil))
	case 2:
		h.Command = CommandReserve
		a := ReserveArg{Command: ReserveCommand(op[3]%2 + 1)}
		for i, mac := range sessionMACs {
			if op[2]>>i&1 != 0 {
				a.MACs = append(a.MACs, mac)
			}
		}
		b = a.AppendTo(h.AppendTo(nil))
	case 3:
		h.Command = CommandMask
		a := MaskArg{Command: MaskEdit, Count: 1, Directives: []Directive{{DirectiveAdd + op[3]%2, sessionMACs[op[2]%3]}}}
		b = a.AppendTo(h.AppendTo(nil))
	case 4:
		b = (&ATA{Command: op[3], Count: op[2]}).AppendTo(h.AppendTo(nil))
		b[19] = op[2] & 3
	case 5: // a write that lacks something
		a := ATA{Flags: ATAFlagExt | ATAFlagWrite, Command: ATAWriteExt, Count: 1, LBA: lba}
		b = append(a.AppendTo(h.AppendTo(nil)), bytes.Repeat([]byte{0xbb}, 512)...)
		b = b[:min(len(b)-1, int(op[3])*3)]
	case 6: // a late copy
		b = bytes.Clone(m.last)
	}
	m.last = b
	return b
}

// expect says how a frame is answered, and with what data, and applies it to the model.
func (m *sessionModel) expect(b []byte) (answer int, data []byte) {
	m.given++
	if len(b) < HeaderLen || !m.serving {
		return answerNone, nil
	}
	src := MAC(b[6:12])
	if len(m.mask) > 0 && !slices.Contains(m.mask, src) {
		return answerNone, nil
	}
	member := len(m.reserve) == 0 || slices.Contains(m.reserve, src)
	switch Command(b[19]) {
	case CommandATA:
		return m.expectATA(b, member)
	case CommandReserve:
		if len(b) < HeaderLen+2 || b[24] != 1 && b[24] != 2 || len(b) < HeaderLen+2+6*int(b[25]) {
			return answerAny, nil
		}
		if b[24] == 1 && !member {
			return answerReserved, nil
		}
		m.reserve = nil
		for i := range int(b[25]) {
			m.reserve = append(m.reserve, MAC(b[26+6*i:]))
		}
	case CommandMask:
		if len(b) < HeaderLen+4+8 || b[25] != 1 || b[27] != 1 {
			return answerAny, nil
		}
		mac := MAC(b[30:])
		m.mask = slices.DeleteFunc(slices.Clone(m.mask), func(o MAC) bool { return o == mac })
		if b[29] == DirectiveAdd {
			m.mask = append(m.mask, mac)
		}
	case CommandConfig, CommandPeer:
	}
	return answerAny, nil
}

func (m *sessionModel) expectATA(b []byte, member bool) (answer int, data []byte) {
	if len(b) < DataOffset {
		return answerAny, nil
	}
	lba, n := binary.LittleEndian.Uint64(b[28:])&(1<<48-1), uint64(b[26])
	inside := lba+n <= 16 && n > 0 && n <= 2
	switch {
	case !member && b[27] != 0xec:
		return answerReserved, nil
	case b[27] == 0x24 && inside:
		return answerGood, m.data[lba*512 : (lba+n)*512]
	case b[27] == 0x34 && inside && uint64(len(b)) >= 36+n*512:
		copy(m.data[lba*512:], b[36:36+n*512])
		return answerGood, nil
	}
	return answerAny, nil
}

// compare looks at what the target has answered.
func (m *sessionModel) compare(t *testing.T, w *wire, req []byte, want int, data []byte) {
	t.Helper()
	if len(w.got) == 0 {
		if want != answerNone && want != answerAny {
			t.Fatalf("no answer to % x", req[:min(len(req), DataOffset)])
		}
		return
	}
	b := <-w.got
	reserved := Flags(b[14])&FlagError != 0 && ErrorCode(b[15]) == ErrReserved
	good := Flags(b[14])&FlagError == 0 && b[19] == byte(CommandATA) && b[27]&StatusError == 0
	switch {
	case want == answerNone, len(w.got) > 0:
		t.Fatalf("answer % x to % x", b[:DataOffset], req[:min(len(req), DataOffset)])
	case want == answerReserved && !reserved, want == answerGood && !good, data != nil && !bytes.Equal(b[DataOffset:], data):
		t.Fatalf("answer % x to % x, want kind %d", b, req[:min(len(req), DataOffset)], want)
	}
}
