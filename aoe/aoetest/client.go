// Package aoetest is a small AoE initiator for tests: one request at a time,
// every answer checked for what must hold for all answers.
package aoetest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/replblk/replblk/aoe"
)

// Link is what a Client needs of an interface; *packet.Socket has it.
type Link interface {
	Recv(bufs [][]byte, times []time.Time) (int, error)
	Send(frames [][]byte) (int, error)
	SetRecvDeadline(t time.Time) error
	HardwareAddr() [6]byte
}

// ErrSilent is returned when no answer came in time.
var ErrSilent = errors.New("no answer")

// Client talks to one target.
type Client struct {
	Shelf   uint16
	Slot    uint8
	Target  aoe.MAC       // where requests go; Broadcast until Discover
	Source  aoe.MAC       // zero means the link's
	Timeout time.Duration // per request; 0 means a second

	link Link
	tag  uint32
	bufs [][]byte
	full [][]byte
}

// NewClient returns a client that asks on link for shelf.slot.
func NewClient(link Link, shelf uint16, slot uint8) *Client {
	c := &Client{Shelf: shelf, Slot: slot, Target: aoe.Broadcast, link: link, tag: 0x10000}
	for range 16 {
		c.full = append(c.full, make([]byte, 1<<16))
	}
	c.bufs = make([][]byte, len(c.full))
	return c
}

// Header returns the header of the next request.
func (c *Client) Header(cmd aoe.Command) aoe.Header {
	c.tag++
	src := c.Source
	if src == (aoe.MAC{}) {
		src = c.link.HardwareAddr()
	}
	return aoe.Header{Dst: c.Target, Src: src, Version: aoe.Version,
		Shelf: c.Shelf, Slot: c.Slot, Command: cmd, Tag: c.tag}
}

// Do sends a frame and returns the first answer with its tag.
func (c *Client) Do(frame []byte) (aoe.Header, []byte, error) {
	var sent, got aoe.Header
	if err := sent.DecodeFrom(frame); err != nil {
		return got, nil, err
	}
	if _, err := c.link.Send([][]byte{frame}); err != nil {
		return got, nil, err
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = time.Second
	}
	if err := c.link.SetRecvDeadline(time.Now().Add(timeout)); err != nil {
		return got, nil, err
	}
	for {
		copy(c.bufs, c.full)
		n, err := c.link.Recv(c.bufs, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got, nil, ErrSilent
		}
		if err != nil {
			return got, nil, err
		}
		for _, b := range c.bufs[:n] {
			if got.DecodeFrom(b) == nil && got.Flags&aoe.FlagResponse != 0 && got.Tag == sent.Tag {
				return got, append([]byte(nil), b...), c.check(&sent, &got)
			}
		}
	}
}

// check returns what is wrong with any answer like this.
func (c *Client) check(sent, got *aoe.Header) error {
	switch {
	case got.Version != aoe.Version:
		return fmt.Errorf("answer has version %d", got.Version)
	case got.Dst != sent.Src:
		return fmt.Errorf("answer went to %v, not to %v", got.Dst, sent.Src)
	case got.Shelf == aoe.AnyShelf || got.Slot == aoe.AnySlot:
		return errors.New("answer has a wildcard address")
	case got.Command != sent.Command:
		return fmt.Errorf("answer to command %d has command %d", sent.Command, got.Command)
	case got.Flags&aoe.FlagError != 0 && got.Error == 0, got.Flags&aoe.FlagError == 0 && got.Error != 0:
		return fmt.Errorf("answer has flags %#x and error %d", got.Flags, got.Error)
	}
	return nil
}

// AoEError is an answer with an error code.
type AoEError aoe.ErrorCode

// Error implements error.
func (e AoEError) Error() string { return fmt.Sprintf("aoe error %d", uint8(e)) }

// ATA runs an ATA command and returns the registers and the data of the answer.
func (c *Client) ATA(a aoe.ATA, data []byte) (aoe.ATA, []byte, error) {
	h := c.Header(aoe.CommandATA)
	frame := append(a.AppendTo(h.AppendTo(nil)), data...)
	got, b, err := c.Do(frame)
	if err != nil {
		return aoe.ATA{}, nil, err
	}
	if got.Flags&aoe.FlagError != 0 {
		return aoe.ATA{}, nil, AoEError(got.Error)
	}
	var r aoe.ATA
	if err := r.DecodeFrom(b); err != nil {
		return r, nil, err
	}
	return r, b[aoe.DataOffset:], nil
}

// Config runs a config command.
func (c *Client) Config(cmd aoe.ConfigCommand, s string) (aoe.ConfigArg, error) {
	h := c.Header(aoe.CommandConfig)
	a := aoe.ConfigArg{Version: aoe.Version, Command: cmd, String: []byte(s)}
	got, b, err := c.Do(a.AppendTo(h.AppendTo(nil)))
	if err != nil {
		return aoe.ConfigArg{}, err
	}
	if got.Flags&aoe.FlagError != 0 {
		return aoe.ConfigArg{}, AoEError(got.Error)
	}
	var r aoe.ConfigArg
	return r, r.DecodeFrom(b)
}

// Discover asks for the target by broadcast and remembers its address.
func (c *Client) Discover() (aoe.ConfigArg, error) {
	c.Target = aoe.Broadcast
	h := c.Header(aoe.CommandConfig)
	a := aoe.ConfigArg{Version: aoe.Version, Command: aoe.ConfigRead}
	got, b, err := c.Do(a.AppendTo(h.AppendTo(nil)))
	if err != nil {
		return aoe.ConfigArg{}, err
	}
	c.Target, c.Shelf, c.Slot = got.Src, got.Shelf, got.Slot
	var r aoe.ConfigArg
	return r, r.DecodeFrom(b)
}

// Mask runs a mask command.
func (c *Client) Mask(cmd aoe.MaskCommand, ds ...aoe.Directive) (aoe.MaskArg, error) {
	h := c.Header(aoe.CommandMask)
	a := aoe.MaskArg{Command: cmd, Count: uint8(len(ds)), Directives: ds}
	got, b, err := c.Do(a.AppendTo(h.AppendTo(nil)))
	if err != nil {
		return aoe.MaskArg{}, err
	}
	if got.Flags&aoe.FlagError != 0 {
		return aoe.MaskArg{}, AoEError(got.Error)
	}
	var r aoe.MaskArg
	return r, r.DecodeFrom(b)
}

// Reserve runs a reserve command.
func (c *Client) Reserve(cmd aoe.ReserveCommand, macs ...aoe.MAC) (aoe.ReserveArg, error) {
	h := c.Header(aoe.CommandReserve)
	a := aoe.ReserveArg{Command: cmd, MACs: macs}
	got, b, err := c.Do(a.AppendTo(h.AppendTo(nil)))
	if err != nil {
		return aoe.ReserveArg{}, err
	}
	if got.Flags&aoe.FlagError != 0 {
		return aoe.ReserveArg{}, AoEError(got.Error)
	}
	var r aoe.ReserveArg
	return r, r.DecodeFrom(b)
}
