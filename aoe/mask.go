package aoe

import "slices"

// MaxMACs is the largest mask or reserve list: its length is one byte.
const MaxMACs = 255

const (
	maskLen      = 4 // mask argument without directives
	directiveLen = 8
	// maxListFrame is the longest answer that does not depend on the MTU.
	maxListFrame = HeaderLen + maskLen + MaxMACs*directiveLen
)

// MaskCommand says what a mask request wants.
type MaskCommand uint8

// Mask commands.
const (
	MaskRead MaskCommand = 0
	MaskEdit MaskCommand = 1
)

// MaskError is the error of a mask response.
type MaskError uint8

// Mask errors.
const (
	MaskOK           MaskError = 0
	MaskUnspecified  MaskError = 1
	MaskBadDirective MaskError = 2
	MaskFull         MaskError = 3
)

// Directive is one step of a mask edit.
type Directive struct {
	Command uint8 // DirectiveNone, DirectiveAdd, DirectiveDelete
	MAC     MAC
}

// Directive commands.
const (
	DirectiveNone   = 0
	DirectiveAdd    = 1
	DirectiveDelete = 2
)

// MaskArg is the argument of CommandMask (spec/aoe.md 1.4).
//
//	offset  size  field
//	    24     1  reserved
//	    25     1  Command
//	    26     1  Error   in responses
//	    27     1  number of Directives
//	    28     8  each: reserved, directive command, MAC
type MaskArg struct {
	Command    MaskCommand
	Error      MaskError
	Count      uint8 // directives announced; processed ones in a response with Error
	Directives []Directive
}

// DecodeFrom reads the argument of frame b. Directives are those that the frame
// announces; a frame that ends before them is ErrShortFrame. A response with
// Error has a count and no directives, those of a request to read are ignored.
func (a *MaskArg) DecodeFrom(b []byte) error {
	if len(b) < HeaderLen+maskLen {
		return ErrShortFrame
	}
	a.Command, a.Error, a.Count = MaskCommand(b[25]), MaskError(b[26]), b[27]
	a.Directives = nil
	response := Flags(b[14])&FlagResponse != 0
	if response && a.Error != MaskOK || !response && a.Command == MaskRead {
		return nil
	}
	list := b[HeaderLen+maskLen:]
	if len(list) < int(a.Count)*directiveLen {
		return ErrShortFrame
	}
	for i := range int(a.Count) {
		d := list[i*directiveLen:]
		a.Directives = append(a.Directives, Directive{Command: d[1], MAC: MAC(d[2:8])})
	}
	return nil
}

// AppendTo appends the encoded argument to b, which holds the header.
func (a *MaskArg) AppendTo(b []byte) []byte {
	b = append(b, 0, uint8(a.Command), uint8(a.Error), a.Count)
	for _, d := range a.Directives {
		b = append(b, 0, d.Command)
		b = append(b, d.MAC[:]...)
	}
	return b
}

// handleMask serves CommandMask.
func (t *Target) handleMask(c *call) {
	var a MaskArg
	if a.DecodeFrom(c.frame.Bytes()) != nil {
		c.malformed()
		return
	}
	if a.Command > MaskEdit {
		c.malformed()
		return
	}
	resp := MaskArg{Command: a.Command}
	t.mu.Lock()
	if a.Command == MaskEdit {
		resp.Count, resp.Error = t.editMaskLocked(a.Directives, c.sender.MTU())
	}
	if resp.Error == MaskOK {
		resp.Count = uint8(len(t.mask))
		for _, m := range t.mask {
			resp.Directives = append(resp.Directives, Directive{MAC: m})
		}
	}
	t.mu.Unlock()
	c.replyList(len(resp.AppendTo(c.frame.buf[:HeaderLen])))
}

// editMaskLocked applies directives until one fails. Those before it stay, as
// in vblade. It returns how many were processed. The list is full when a frame
// could not hold it.
func (t *Target) editMaskLocked(ds []Directive, mtu int) (done uint8, err MaskError) {
	if t.permit&PermitMask == 0 {
		return 0, MaskUnspecified
	}
	most := min(MaxMACs, (mtu+EthernetLen-HeaderLen-maskLen)/directiveLen)
	mask := slices.Clone(t.mask)
	defer func() {
		if !slices.Equal(mask, t.mask) {
			t.mask = mask
			t.changedLocked()
		}
	}()
	for _, d := range ds {
		at := slices.Index(mask, d.MAC)
		switch d.Command {
		case DirectiveNone:
		case DirectiveAdd:
			if at < 0 && len(mask) >= most {
				return done, MaskFull
			}
			if at < 0 {
				mask = append(mask, d.MAC)
			}
		case DirectiveDelete:
			if at >= 0 {
				mask = slices.Delete(mask, at, at+1)
			}
		default:
			return done, MaskBadDirective
		}
		done++
	}
	return done, MaskOK
}
