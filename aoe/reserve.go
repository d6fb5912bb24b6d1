package aoe

import "slices"

// reserveLen is the size of the reserve argument without addresses.
const reserveLen = 2

// ReserveCommand says what a reserve request wants.
type ReserveCommand uint8

// Reserve commands.
const (
	ReserveRead     ReserveCommand = 0
	ReserveSet      ReserveCommand = 1 // allowed if the list is empty or has the requester
	ReserveForceSet ReserveCommand = 2
)

// ReserveArg is the argument of CommandReserve (spec/aoe.md 1.5).
//
//	offset  size  field
//	    24     1  Command
//	    25     1  number of MACs
//	    26     6  each
type ReserveArg struct {
	Command ReserveCommand
	MACs    []MAC
}

// DecodeFrom reads the argument of frame b. The list of a request to read is
// ignored.
func (a *ReserveArg) DecodeFrom(b []byte) error {
	if len(b) < HeaderLen+reserveLen {
		return ErrShortFrame
	}
	a.Command = ReserveCommand(b[24])
	a.MACs = nil
	if a.Command == ReserveRead && Flags(b[14])&FlagResponse == 0 {
		return nil
	}
	n := int(b[25])
	list := b[HeaderLen+reserveLen:]
	if len(list) < n*len(MAC{}) {
		return ErrShortFrame
	}
	for i := range n {
		a.MACs = append(a.MACs, MAC(list[i*6:i*6+6]))
	}
	return nil
}

// AppendTo appends the encoded argument to b, which holds the header.
func (a *ReserveArg) AppendTo(b []byte) []byte {
	b = append(b, uint8(a.Command), uint8(len(a.MACs)))
	for _, m := range a.MACs {
		b = append(b, m[:]...)
	}
	return b
}

// handleReserve serves CommandReserve.
func (t *Target) handleReserve(c *call) {
	var a ReserveArg
	if a.DecodeFrom(c.frame.Bytes()) != nil {
		c.malformed()
		return
	}
	t.mu.Lock()
	var code ErrorCode
	switch a.Command {
	case ReserveRead:
	case ReserveSet:
		if len(t.reserve) > 0 && !slices.Contains(t.reserve, c.hdr.Src) {
			code = ErrReserved
			break
		}
		code = t.setReserveLocked(a.MACs)
	case ReserveForceSet:
		code = t.setReserveLocked(a.MACs)
	default:
		code = ErrArgument
	}
	resp := ReserveArg{Command: a.Command, MACs: slices.Clone(t.reserve)}
	t.mu.Unlock()
	n := len(resp.AppendTo(c.frame.buf[:HeaderLen]))
	if code != 0 {
		c.failList(code, n)
		return
	}
	c.replyList(n)
}

// setReserveLocked replaces the list. Empty means released.
func (t *Target) setReserveLocked(macs []MAC) ErrorCode {
	if slices.Equal(macs, t.reserve) {
		return 0
	}
	if t.permit&PermitReserve == 0 {
		return ErrReserved
	}
	t.reserve = slices.Clone(macs)
	t.changedLocked()
	return 0
}
