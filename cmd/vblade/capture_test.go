package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

var capture = flag.Bool("capture", false, "write aoe/testdata/vblade25.txt from Debian's vblade")

// TestCapture asks a vblade for the golden frames of package aoe, see
// aoe/testdata/README.md. Without -capture it asks ours and compares nothing
// but that each request which Debian's answers is answered.
func TestCapture(t *testing.T) {
	unraced(t)
	bin := debian
	if !*capture {
		bin = build(t)
	}
	n, path := newNets(t, 1500), image(t, 100)
	link := n.socket(t)
	n.start(t, bin, "7", "3", "srv", path)
	c := aoetest.NewClient(link, 7, 3)
	c.Timeout = silence
	var out bytes.Buffer
	bufs := [][]byte{make([]byte, 2000)}
	if _, err := link.Recv(bufs, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "advertisement\n-\n%x\n\n", bufs[0])
	c.Target = aoe.MAC{2, 0, 0, 0, 0, 1}
	for _, r := range captureRequests(c) {
		_, b, err := c.Do(r.frame)
		if err != nil && !errors.Is(err, aoetest.ErrSilent) {
			t.Fatalf("%s: %v", r.name, err)
		}
		reply := "-"
		if err == nil {
			reply = fmt.Sprintf("%x", b)
		}
		fmt.Fprintf(&out, "%s\n%x\n%s\n\n", r.name, r.frame, reply)
	}
	if !*capture {
		return
	}
	if err := os.WriteFile("../../aoe/testdata/vblade25.txt", out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

type request struct {
	name  string
	frame []byte
}

// captureRequests returns the session, in order: later requests meet the state
// that earlier ones left.
func captureRequests(c *aoetest.Client) (rs []request) {
	ata := func(name string, a aoe.ATA, data int) {
		h := c.Header(aoe.CommandATA)
		rs = append(rs, request{name, append(a.AppendTo(h.AppendTo(nil)), bytes.Repeat([]byte{0x5a}, data)...)})
	}
	config := func(name string, cmd aoe.ConfigCommand, s string) {
		h := c.Header(aoe.CommandConfig)
		a := aoe.ConfigArg{Version: 1, Command: cmd, String: []byte(s)}
		rs = append(rs, request{name, a.AppendTo(h.AppendTo(nil))})
	}
	mask := func(name string, cmd aoe.MaskCommand, ds ...aoe.Directive) {
		h := c.Header(aoe.CommandMask)
		a := aoe.MaskArg{Command: cmd, Count: uint8(len(ds)), Directives: ds}
		rs = append(rs, request{name, a.AppendTo(h.AppendTo(nil))})
	}
	reserve := func(name string, cmd aoe.ReserveCommand, ms ...aoe.MAC) {
		h := c.Header(aoe.CommandReserve)
		a := aoe.ReserveArg{Command: cmd, MACs: ms}
		rs = append(rs, request{name, a.AppendTo(h.AppendTo(nil))})
	}
	me, other := aoe.MAC{2, 0, 0, 0, 0, 2}, aoe.MAC{2, 0, 0, 0, 0, 9}

	ata("identify", aoe.ATA{Command: aoe.ATAIdentify, Count: 1, LBA: 0xa0000000}, 0)
	ata("identify count 2", aoe.ATA{Command: aoe.ATAIdentify, Count: 2}, 0)
	ata("read 28", aoe.ATA{Command: aoe.ATARead, Count: 1, LBA: 0xe0000005}, 0)
	ata("read 48", aoe.ATA{Flags: 0x40, Command: aoe.ATAReadExt, Count: 2, LBA: 98}, 0)
	ata("read 28 with the ext flag", aoe.ATA{Flags: 0x40, Command: aoe.ATARead, Count: 1, LBA: 5}, 0)
	ata("read 48 without the ext flag", aoe.ATA{Command: aoe.ATAReadExt, Count: 1, LBA: 5}, 0)
	ata("read across the end", aoe.ATA{Flags: 0x40, Command: aoe.ATAReadExt, Count: 2, LBA: 99}, 0)
	ata("read of nothing", aoe.ATA{Command: aoe.ATARead, LBA: 5}, 0)
	ata("read of more than a frame", aoe.ATA{Command: aoe.ATARead, Count: 3, LBA: 5}, 0)
	ata("write 28", aoe.ATA{Flags: 1, Command: aoe.ATAWrite, Count: 1, LBA: 7}, 512)
	ata("write 48", aoe.ATA{Flags: 0x41, Command: aoe.ATAWriteExt, Count: 2, LBA: 8}, 1024)
	ata("read back", aoe.ATA{Command: aoe.ATARead, Count: 2, LBA: 6}, 0)
	ata("write cut short", aoe.ATA{Flags: 1, Command: aoe.ATAWrite, Count: 2, LBA: 7}, 1000)
	ata("write across the end", aoe.ATA{Flags: 0x41, Command: aoe.ATAWriteExt, Count: 2, LBA: 99}, 1024)
	ata("flush", aoe.ATA{Command: aoe.ATAFlush}, 0)
	ata("flush ext", aoe.ATA{Flags: 0x40, Command: aoe.ATAFlushExt}, 0)
	ata("check power", aoe.ATA{Command: aoe.ATACheckPower}, 0)
	ata("unknown ata command", aoe.ATA{Command: 0x99, Count: 1}, 0)
	config("config read", aoe.ConfigRead, "")
	config("config test other", aoe.ConfigTest, "abc")
	config("config set", aoe.ConfigSet, "abc")
	config("config set same", aoe.ConfigSet, "abc")
	config("config set other", aoe.ConfigSet, "abd")
	config("config test", aoe.ConfigTest, "abc")
	config("config prefix", aoe.ConfigTestPrefix, "ab")
	config("config prefix too long", aoe.ConfigTestPrefix, "abcd")
	config("config force", aoe.ConfigForceSet, "xyzzy")
	config("config clear", aoe.ConfigForceSet, "")
	config("config unknown", 9, "")
	reserve("reserve read", aoe.ReserveRead)
	reserve("reserve set", aoe.ReserveSet, other)
	ata("read while reserved", aoe.ATA{Command: aoe.ATARead, Count: 1}, 0)
	ata("identify while reserved", aoe.ATA{Command: aoe.ATAIdentify, Count: 1}, 0)
	reserve("reserve by an outsider", aoe.ReserveSet, me)
	reserve("reserve unknown", 7, me)
	reserve("reserve force", aoe.ReserveForceSet, me, other)
	ata("read by a member", aoe.ATA{Command: aoe.ATARead, Count: 1}, 0)
	reserve("reserve release", aoe.ReserveSet)
	mask("mask read", aoe.MaskRead)
	mask("mask add", aoe.MaskEdit, aoe.Directive{Command: 1, MAC: me}, aoe.Directive{Command: 1, MAC: other})
	mask("mask bad directive", aoe.MaskEdit, aoe.Directive{Command: 1, MAC: me}, aoe.Directive{Command: 9, MAC: other})
	mask("mask unknown", 5)
	h := c.Header(0x33)
	rs = append(rs, request{"unknown command", append(h.AppendTo(nil), make([]byte, 40)...)})
	h = c.Header(aoe.CommandATA)
	h.Shelf = 8
	rs = append(rs, request{"other shelf", append(h.AppendTo(nil), make([]byte, 40)...)})
	h = c.Header(aoe.CommandConfig)
	h.Shelf, h.Slot = aoe.AnyShelf, 3
	rs = append(rs, request{"any shelf", append(h.AppendTo(nil), make([]byte, 40)...)})
	return rs
}
