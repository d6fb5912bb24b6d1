package aoe

import (
	"bytes"
	"encoding/binary"
	"time"
)

// MaxConfigString is the longest config string in bytes.
const MaxConfigString = 1024

// configLen is the size of the config argument without the string.
const configLen = 8

// ConfigCommand is the low nibble of a config argument's byte 5.
type ConfigCommand uint8

// Config commands.
const (
	ConfigRead       ConfigCommand = 0 // tell the string
	ConfigTest       ConfigCommand = 1 // answer only if the string is equal
	ConfigTestPrefix ConfigCommand = 2 // answer only if the string starts so
	ConfigSet        ConfigCommand = 3 // set the string if there is none
	ConfigForceSet   ConfigCommand = 4 // set the string
)

// ConfigArg is the argument of CommandConfig (spec/aoe.md 1.3).
//
//	offset  size  field
//	    24     2  Buffers   frames that may be outstanding
//	    26     2  Firmware
//	    28     1  Sectors   per frame; 0 means 2
//	    29     1  Version in the high nibble, Command in the low
//	    30     2  length of String
//	    32        String
type ConfigArg struct {
	Buffers  uint16
	Firmware uint16
	Sectors  uint8
	Version  uint8
	Command  ConfigCommand
	String   []byte // part of the frame that was decoded
}

// DecodeFrom reads the argument of frame b. A string that the frame does not
// hold entirely leaves String nil and is ErrShortFrame, but only then: aoeping
// reads (ConfigRead) with a length and no string, and what is not used is not
// judged.
func (a *ConfigArg) DecodeFrom(b []byte) error {
	if len(b) < HeaderLen+configLen {
		return ErrShortFrame
	}
	a.Buffers = binary.BigEndian.Uint16(b[24:])
	a.Firmware = binary.BigEndian.Uint16(b[26:])
	a.Sectors = b[28]
	a.Version = b[29] >> 4
	a.Command = ConfigCommand(b[29] & 0x0f)
	a.String = nil
	n := int(binary.BigEndian.Uint16(b[30:]))
	if a.Command == ConfigRead && b[14]>>3&1 == 0 {
		return nil
	}
	if n > MaxConfigString || n > len(b)-HeaderLen-configLen {
		return ErrShortFrame
	}
	a.String = b[32 : 32+n]
	return nil
}

// AppendTo appends the encoded argument to b, which holds the header.
func (a *ConfigArg) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, a.Buffers)
	b = binary.BigEndian.AppendUint16(b, a.Firmware)
	b = append(b, a.Sectors, a.Version<<4|uint8(a.Command&0x0f))
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.String)))
	return append(b, a.String...)
}

// handleConfig serves CommandConfig.
func (t *Target) handleConfig(c *call) {
	var a ConfigArg
	if a.DecodeFrom(c.frame.Bytes()) != nil {
		c.malformed()
		return
	}
	switch a.Command {
	case ConfigRead:
		t.replyConfig(c, a.Command)
	case ConfigTest:
		t.configTest(c, &a, bytes.Equal)
	case ConfigTestPrefix:
		t.configTest(c, &a, bytes.HasPrefix)
	case ConfigSet, ConfigForceSet:
		if code := t.setConfig(&a); code != 0 {
			c.failList(code, t.putConfig(c.frame.buf, c.sender.MTU(), a.Command))
			return
		}
		c.replyList(t.putConfig(c.frame.buf, c.sender.MTU(), a.Command))
	default:
		c.countMalformed()
		c.failList(ErrArgument, t.putConfig(c.frame.buf, c.sender.MTU(), a.Command))
	}
}

// configTest answers if the string passes, and is silent if not.
func (t *Target) configTest(c *call, a *ConfigArg, pass func(stored, asked []byte) bool) {
	t.mu.Lock()
	ok := pass(t.config, a.String)
	t.mu.Unlock()
	if !ok {
		c.drop(DropMismatch)
		return
	}
	t.replyConfig(c, a.Command)
}

// setConfig stores the string if the command and the policy permit it.
func (t *Target) setConfig(a *ConfigArg) ErrorCode {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := bytes.Equal(t.config, a.String)
	switch {
	case a.Command == ConfigSet && len(t.config) > 0 && !same:
		return ErrConfigSet
	case same:
		return 0 // repeated request
	case t.permit&PermitConfig == 0:
		return ErrArgument
	}
	t.config = bytes.Clone(a.String)
	t.changedLocked()
	return 0
}

// replyConfig turns c's frame into a config response.
func (t *Target) replyConfig(c *call, cmd ConfigCommand) {
	n := t.putConfig(c.frame.buf, c.sender.MTU(), cmd)
	c.target.counters.Other.Add(1)
	c.initiator.Counters.Other.Add(1)
	c.reply(n)
}

// putConfig writes the config argument into buf and returns the frame's length.
func (t *Target) putConfig(buf []byte, mtu int, cmd ConfigCommand) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := ConfigArg{
		Buffers: t.buffers, Firmware: t.firmware, Sectors: AdvertisedSectors(mtu),
		Version: Version, Command: cmd, String: t.config,
	}
	return len(a.AppendTo(buf[:HeaderLen]))
}

// AdvertisedSectors returns the sectors per frame to announce for an MTU: a
// multiple of eight where possible, since 17 sectors, which fit into 9000
// bytes, would put every second frame across two 4 KiB blocks.
func AdvertisedSectors(mtu int) uint8 {
	n := (mtu - DataOffset) / 512
	switch {
	case n >= 8:
		return uint8(min(n&^7, 248))
	case n < 1:
		return 1
	}
	return uint8(n)
}

// Advertise sends an unsolicited config response: to everyone, or to each
// member of the mask list; and for a virtual address to the other end of the
// mirror. A target that does not serve is silent.
func (t *Target) Advertise(s Sender, pool *FramePool) {
	t.mu.Lock()
	serving, since := t.mode == Serving, t.since
	to := append([]MAC(nil), t.mask...)
	t.mu.Unlock()
	if !serving {
		return
	}
	var tag claim
	if len(to) == 0 {
		to = []MAC{Broadcast}
	} else if t.virtual {
		to = append(to, s.Addr().group())
	}
	if t.virtual {
		tag = t.claim.served(time.Since(since))
	}
	for _, dst := range to {
		f := pool.Get()
		h := Header{Dst: dst, Src: s.Addr(), Version: Version, Flags: FlagResponse,
			Shelf: t.shelf, Slot: t.slot, Command: CommandConfig, Tag: uint32(tag)}
		h.put(f.buf)
		f.finish(t.putConfig(f.buf, s.MTU(), ConfigRead))
		s.Send(f)
	}
	t.tell(s, pool)
}
