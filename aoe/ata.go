package aoe

import "github.com/replblk/replblk/block"

// DataOffset is where an ATA frame's data starts.
const DataOffset = HeaderLen + ataLen

const ataLen = 12

// Bits of the ATA argument's flags (AFlags). Nothing else in them matters to a
// target: the direction follows from the command, and an asynchronous write may
// be served synchronously.
const (
	ATAFlagWrite  = 0x01
	ATAFlagAsync  = 0x02
	ATAFlagDevice = 0x10
	ATAFlagExt    = 0x40
)

// Bits of the ATA status and error registers.
const (
	StatusReady = 0x40
	StatusError = 0x01

	ATAAbort         = 0x04 // unknown command, or it failed
	ATANotFound      = 0x10 // sectors beyond the end
	ATAUncorrectable = 0x40 // the medium cannot be read
)

// ATA commands that a target knows.
const (
	ATARead           = 0x20
	ATAReadExt        = 0x24
	ATAReadDMAExt     = 0x25
	ATAWrite          = 0x30
	ATAWriteExt       = 0x34
	ATAWriteDMAExt    = 0x35
	ATAWriteDMAFUAExt = 0x3d
	ATAVerify         = 0x40
	ATAVerifyExt      = 0x42
	ATASmart          = 0xb0
	ATAReadDMA        = 0xc8
	ATAWriteDMA       = 0xca
	ATAStandbyNow     = 0xe0
	ATAIdleNow        = 0xe1
	ATAStandby        = 0xe2
	ATAIdle           = 0xe3
	ATACheckPower     = 0xe5
	ATASleep          = 0xe6
	ATAFlush          = 0xe7
	ATAFlushExt       = 0xea
	ATAIdentify       = 0xec
	ATASetFeatures    = 0xef
)

// ATA is the argument of CommandATA (spec/aoe.md 1.2).
//
//	offset  size  field
//	    24     1  Flags    ATAFlag* bits
//	    25     1  Feature  error register in a response
//	    26     1  Count    sectors; those left to do in a response
//	    27     1  Command  status register in a response
//	    28     6  LBA      least significant byte first
//	    34     2  reserved
//	    36        data, Count*512 bytes
type ATA struct {
	Flags   uint8
	Feature uint8
	Count   uint8
	Command uint8
	LBA     uint64
}

// DecodeFrom reads the argument of frame b.
func (a *ATA) DecodeFrom(b []byte) error {
	if len(b) < DataOffset {
		return ErrShortFrame
	}
	a.Flags = b[24]
	a.Feature = b[25]
	a.Count = b[26]
	a.Command = b[27]
	a.LBA = uint64(b[28]) | uint64(b[29])<<8 | uint64(b[30])<<16 |
		uint64(b[31])<<24 | uint64(b[32])<<32 | uint64(b[33])<<40
	return nil
}

// AppendTo appends the encoded argument to b, which holds the header.
func (a *ATA) AppendTo(b []byte) []byte {
	n := len(b)
	b = append(b, make([]byte, ataLen)...)
	a.put(b[n:])
	return b
}

// put encodes a into the first ataLen bytes of b.
func (a *ATA) put(b []byte) {
	b[0], b[1], b[2], b[3] = a.Flags, a.Feature, a.Count, a.Command
	for i := range 6 {
		b[4+i] = byte(a.LBA >> (8 * i))
	}
	b[10], b[11] = 0, 0
}

// ataKind is what a target does for a command.
type ataKind uint8

const (
	ataAbort    ataKind = iota // unknown
	ataRead                    // data to the initiator
	ataWrite                   // data from the initiator
	ataVerify                  // read, and keep the data
	ataFlush                   // make durable
	ataIdentify                // 512 bytes about the target
	ataNothing                 // accepted, without effect
	ataPower                   // always active
	ataFeatures
	ataSmart
)

// ataCommand describes one command code.
type ataCommand struct {
	kind ataKind
	ext  bool // 48-bit address
	fua  bool
}

// ataCommands is table 1.2 of spec/aoe.md. The DMA forms are the PIO forms
// under another name: over Ethernet there is no difference.
var ataCommands = [256]ataCommand{
	ATARead:           {kind: ataRead},
	ATAReadExt:        {kind: ataRead, ext: true},
	ATAReadDMA:        {kind: ataRead},
	ATAReadDMAExt:     {kind: ataRead, ext: true},
	ATAWrite:          {kind: ataWrite},
	ATAWriteExt:       {kind: ataWrite, ext: true},
	ATAWriteDMA:       {kind: ataWrite},
	ATAWriteDMAExt:    {kind: ataWrite, ext: true},
	ATAWriteDMAFUAExt: {kind: ataWrite, ext: true, fua: true},
	ATAVerify:         {kind: ataVerify},
	ATAVerifyExt:      {kind: ataVerify, ext: true},
	ATAFlush:          {kind: ataFlush},
	ATAFlushExt:       {kind: ataFlush},
	ATAIdentify:       {kind: ataIdentify},
	ATACheckPower:     {kind: ataPower},
	ATASetFeatures:    {kind: ataFeatures},
	ATASmart:          {kind: ataSmart},
	ATAStandbyNow:     {kind: ataNothing},
	ATAIdleNow:        {kind: ataNothing},
	ATAStandby:        {kind: ataNothing},
	ATAIdle:           {kind: ataNothing},
	ATASleep:          {kind: ataNothing},
}

const (
	lba28Mask = 1<<28 - 1 // Linux puts device bits into the nibble above
	lba48Mask = 1<<48 - 1
)

// address returns the start sector for a command of the given width.
func (a *ATA) address(ext bool) uint64 {
	if ext {
		return a.LBA & lba48Mask
	}
	return a.LBA & lba28Mask
}

// handleATA serves CommandATA.
func (t *Target) handleATA(c *call) {
	var a ATA
	if a.DecodeFrom(c.frame.Bytes()) != nil {
		c.malformed()
		return
	}
	cmd := ataCommands[a.Command]
	// As in vblade, IDENTIFY stays possible: an initiator must be able to see
	// what it may not use.
	if c.reserved && cmd.kind != ataIdentify {
		c.fail(ErrReserved)
		return
	}
	switch cmd.kind {
	case ataRead, ataWrite, ataVerify:
		t.transfer(c, &a, cmd)
	case ataFlush:
		t.start(c, &a, ataFlush, block.Request{Op: block.Flush})
	case ataIdentify:
		t.handleIdentify(c, &a)
	case ataNothing:
		c.replyATA(&a, 0)
	case ataPower:
		a.Count = 0xff // active or idle
		c.replyATAKeep(&a)
	case ataFeatures:
		c.replyATA(&a, setFeatures(a.Feature))
	case ataSmart:
		smart(c, &a)
	default:
		c.replyATA(&a, ATAAbort)
	}
}

// transfer checks a command with sectors and starts it.
func (t *Target) transfer(c *call, a *ATA, cmd ataCommand) {
	n := int(a.Count)
	// A count of zero means 256 sectors in ATA; no frame can hold them. A
	// verification carries no data, so only zero is wrong there.
	if n == 0 || cmd.kind != ataVerify && n > c.maxSectors() {
		c.malformed()
		return
	}
	r := block.Request{Op: block.Read, Sector: a.address(cmd.ext), Sectors: uint32(n)}
	if cmd.kind == ataWrite {
		// What follows the last received byte belongs to some older frame.
		if len(c.frame.Bytes()) < DataOffset+n*block.SectorSize {
			c.malformed()
			return
		}
		if c.hdr.wildcard() {
			c.drop(DropWildcard)
			return
		}
		r.Op = block.Write
		if cmd.fua || t.commit == CommitFUA {
			r.Flags |= block.FUA
		}
	}
	g := t.device.Geometry()
	if t.notOurs(&g) {
		c.drop(DropUnavailable)
		return
	}
	if r.Sector >= g.Sectors || uint64(n) > g.Sectors-r.Sector {
		c.replyATA(a, ATANotFound)
		return
	}
	if r.Op == block.Write && (g.ReadOnly || t.readOnly) {
		c.replyATA(a, ATAAbort)
		return
	}
	t.start(c, a, cmd.kind, r)
}

// notOurs says whether the device has become another node's: the role has gone and the
// target has not heard of it yet. To answer now, with an error or with a size of
// zero, would break the client's file system (rule R9).
func (t *Target) notOurs(g *block.Geometry) bool { return t.moves && g.ReadOnly }

// setFeatures returns the error register for a SET FEATURES subcommand. The
// write cache and read ahead can be switched without effect: an acknowledged
// write is as durable as CommitMode says either way.
func setFeatures(sub uint8) uint8 {
	switch sub {
	case 0x02, 0x82, 0x55, 0xaa:
		return 0
	}
	return ATAAbort
}

// smart answers the three SMART commands that monitoring tools send first. The
// health of a volume is always good: what fails shows as errors.
func smart(c *call, a *ATA) {
	const key = 0xc24f // lba2, lba1: guards against SMART by mistake
	if a.LBA>>8&0xffff != key {
		c.replyATA(a, ATAAbort)
		return
	}
	switch a.Feature {
	case 0xd8, 0xd9, 0xda: // enable, disable, return status
		c.replyATA(a, 0)
	default:
		c.replyATA(a, ATAAbort)
	}
}
