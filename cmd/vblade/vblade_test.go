package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

const sectors = 4096

// TestServe runs the same session against our vblade and Debian's.
func TestServe(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		both(t, func(t *testing.T, bin string) {
			n, path := newNets(t, mtu), image(t, sectors)
			srv := n.start(t, bin, "7", "3", "srv", path)
			if !startLine.MatchString(srv.line) {
				t.Errorf("start-up line %q", srv.line)
			}
			c := n.initiator(t, aoe.AnyShelf, aoe.AnySlot)
			conf, err := find(c)
			if err != nil {
				t.Fatal(err)
			}
			if c.Shelf != 7 || c.Slot != 3 || c.Target != (aoe.MAC{2, 0, 0, 0, 0, 1}) {
				t.Fatalf("discovered e%d.%d at %v", c.Shelf, c.Slot, c.Target)
			}
			if want := aoe.AdvertisedSectors(mtu); conf.Buffers != 16 || conf.Sectors&^7|conf.Sectors&2 != want {
				t.Errorf("config %+v, want 16 buffers and %d sectors", conf, want)
			}
			checkIdentify(t, c)
			checkReadWrite(t, c, path, int(conf.Sectors&^1))
			checkRefusals(t, c, path)
			checkConfig(t, c)
			checkReserve(t, c)
			checkMask(t, c, bin == debian)
		})
	}
}

func checkIdentify(t *testing.T, c *aoetest.Client) {
	t.Helper()
	r, b, err := c.ATA(aoe.ATA{Command: aoe.ATAIdentify, Count: 1}, nil)
	if err != nil || r.Command != aoe.StatusReady || len(b) < 512 {
		t.Fatalf("identify: %+v, %d bytes, %v", r, len(b), err)
	}
	word := func(i int) uint16 { return binary.LittleEndian.Uint16(b[2*i:]) }
	if word(49)&0x200 == 0 || word(83)&0x400 == 0 || word(86)&0x400 == 0 {
		t.Errorf("identify: no LBA or no LBA48: %04x %04x %04x", word(49), word(83), word(86))
	}
	if n28, n48 := binary.LittleEndian.Uint32(b[120:]), binary.LittleEndian.Uint64(b[200:]); n28 != sectors || n48 != sectors {
		t.Errorf("identify: %d and %d sectors, want %d", n28, n48, sectors)
	}
}

func checkReadWrite(t *testing.T, c *aoetest.Client, path string, count int) {
	t.Helper()
	for _, cmds := range [][2]uint8{{aoe.ATARead, aoe.ATAWrite}, {aoe.ATAReadExt, aoe.ATAWriteExt}} {
		ext := uint8(0)
		if cmds[0] == aoe.ATAReadExt {
			ext = aoe.ATAFlagExt
		}
		for _, lba := range []uint64{0, 1, 777, sectors - uint64(count)} {
			want := bytes.Repeat([]byte{byte(lba), cmds[1]}, count*256)
			r, _, err := c.ATA(aoe.ATA{Flags: ext | aoe.ATAFlagWrite, Command: cmds[1], Count: uint8(count), LBA: lba}, want)
			if err != nil || r.Command != aoe.StatusReady || r.Feature != 0 {
				t.Fatalf("write %#x at %d: %+v, %v", cmds[1], lba, r, err)
			}
			r, got, err := c.ATA(aoe.ATA{Flags: ext, Command: cmds[0], Count: uint8(count), LBA: lba}, nil)
			if err != nil || r.Command != aoe.StatusReady || !bytes.Equal(got[:len(want)], want) {
				t.Fatalf("read %#x at %d: %+v, %v", cmds[0], lba, r, err)
			}
			file, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(file[lba*512:][:len(want)], want) {
				t.Fatalf("the file does not have what was written at %d (%v)", lba, err)
			}
		}
	}
}

func checkRefusals(t *testing.T, c *aoetest.Client, path string) {
	t.Helper()
	before, _ := os.ReadFile(path)
	for _, lba := range []uint64{sectors - 1, sectors, 1<<28 - 1} {
		r, _, err := c.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite | aoe.ATAFlagExt, Command: aoe.ATAWriteExt, Count: 2, LBA: lba}, make([]byte, 1024))
		if err != nil || r.Command&aoe.StatusError == 0 || r.Feature&aoe.ATANotFound == 0 {
			t.Errorf("write at %d: %+v, %v, want IDNF", lba, r, err)
		}
	}
	r, _, err := c.ATA(aoe.ATA{Command: 0x99, Count: 1}, nil)
	if err != nil || r.Command != aoe.StatusReady|aoe.StatusError || r.Feature != aoe.ATAAbort {
		t.Errorf("unknown ata command: %+v, %v", r, err)
	}
	// A write cut short.
	_, _, err = c.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite, Command: aoe.ATAWrite, Count: 2, LBA: 9}, make([]byte, 1023))
	if !errors.Is(err, aoetest.AoEError(aoe.ErrArgument)) {
		t.Errorf("short write: %v", err)
	}
	_, _, err = c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 200}, nil)
	if !errors.Is(err, aoetest.AoEError(aoe.ErrArgument)) {
		t.Errorf("long read: %v", err)
	}
	h := c.Header(77)
	if got, _, err := c.Do(append(h.AppendTo(nil), make([]byte, 40)...)); err != nil || got.Error != aoe.ErrCommand {
		t.Errorf("unknown command: %+v, %v", got, err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a refused command changed the file")
	}
}

func checkConfig(t *testing.T, c *aoetest.Client) {
	t.Helper()
	const silent = "\x00silent"
	for _, step := range []struct {
		cmd  aoe.ConfigCommand
		s    string
		want string // string of the answer, or silent
		err  aoe.ErrorCode
	}{
		{aoe.ConfigRead, "", "", 0},
		{aoe.ConfigTest, "abc", silent, 0},
		{aoe.ConfigTest, "", "", 0},
		{aoe.ConfigSet, "abc", "abc", 0},
		{aoe.ConfigSet, "abc", "abc", 0},
		{aoe.ConfigSet, "abd", "", aoe.ErrConfigSet},
		{aoe.ConfigTest, "abc", "abc", 0},
		{aoe.ConfigTest, "ab", silent, 0},
		{aoe.ConfigTestPrefix, "ab", "abc", 0},
		{aoe.ConfigTestPrefix, "abcd", silent, 0},
		{aoe.ConfigForceSet, "xyz", "xyz", 0},
		{aoe.ConfigRead, "", "xyz", 0},
		{aoe.ConfigForceSet, "", "", 0},
		{9, "", "", aoe.ErrArgument},
	} {
		if step.want == silent {
			if !unanswered(c, func() error { _, err := c.Config(step.cmd, step.s); return err }) {
				t.Errorf("config %d %q was answered", step.cmd, step.s)
			}
			continue
		}
		a, err := c.Config(step.cmd, step.s)
		switch {
		case step.err != 0:
			if !errors.Is(err, aoetest.AoEError(step.err)) {
				t.Errorf("config %d %q: %v, want error %d", step.cmd, step.s, err, step.err)
			}
		case err != nil || string(a.String) != step.want || a.Command != step.cmd:
			t.Errorf("config %d %q: %+v, %v, want %q", step.cmd, step.s, a, err, step.want)
		}
	}
}

func checkReserve(t *testing.T, c *aoetest.Client) {
	t.Helper()
	me, other := aoe.MAC{2, 0, 0, 0, 0, 2}, aoe.MAC{2, 0, 0, 0, 0, 9}
	list := func(what string, r aoe.ReserveArg, err error, want ...aoe.MAC) {
		t.Helper()
		if err != nil || len(r.MACs) != len(want) {
			t.Errorf("%s: %v, %v, want %v", what, r.MACs, err, want)
		}
	}
	r, err := c.Reserve(aoe.ReserveSet, other)
	list("reserve for other", r, err, other)
	read := aoe.ATA{Command: aoe.ATARead, Count: 1}
	if _, _, err := c.ATA(read, nil); !errors.Is(err, aoetest.AoEError(aoe.ErrReserved)) {
		t.Errorf("read while reserved: %v", err)
	}
	if _, _, err := c.ATA(aoe.ATA{Command: aoe.ATAIdentify, Count: 1}, nil); err != nil {
		t.Errorf("identify while reserved: %v", err)
	}
	if _, err := c.Reserve(aoe.ReserveSet, me); !errors.Is(err, aoetest.AoEError(aoe.ErrReserved)) {
		t.Errorf("set by an outsider: %v", err)
	}
	r, err = c.Reserve(aoe.ReserveRead)
	list("read", r, err, other)
	r, err = c.Reserve(aoe.ReserveForceSet, me, other)
	list("force", r, err, me, other)
	if _, _, err := c.ATA(read, nil); err != nil {
		t.Errorf("read by a member: %v", err)
	}
	r, err = c.Reserve(aoe.ReserveSet)
	list("release", r, err)
}

// checkMask leaves out what vblade 25 does wrong: a deleted entry stays in its
// list, in use and in answers.
func checkMask(t *testing.T, c *aoetest.Client, noDelete bool) {
	t.Helper()
	me, other := aoe.MAC{2, 0, 0, 0, 0, 2}, aoe.MAC{2, 0, 0, 0, 0, 9}
	m, err := c.Mask(aoe.MaskRead)
	if err != nil || m.Count != 0 {
		t.Errorf("empty mask: %+v, %v", m, err)
	}
	m, err = c.Mask(aoe.MaskEdit, aoe.Directive{Command: aoe.DirectiveAdd, MAC: me}, aoe.Directive{Command: aoe.DirectiveAdd, MAC: other})
	if err != nil || m.Error != 0 || m.Count != 2 {
		t.Errorf("add: %+v, %v", m, err)
	}
	if noDelete {
		return
	}
	m, err = c.Mask(aoe.MaskEdit, aoe.Directive{Command: aoe.DirectiveDelete, MAC: other}, aoe.Directive{Command: 9, MAC: other})
	if err != nil || m.Error != aoe.MaskBadDirective {
		t.Errorf("bad directive: %+v, %v", m, err)
	}
	if m, err = c.Mask(aoe.MaskRead); err != nil || m.Count != 1 || m.Directives[0].MAC != me {
		t.Errorf("after the bad directive: %+v, %v", m, err)
	}
	c.Source = other
	if !unanswered(c, func() error { _, _, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1}, nil); return err }) {
		t.Error("a read by a masked station was answered")
	}
	c.Source = aoe.MAC{}
	if m, err = c.Mask(aoe.MaskEdit, aoe.Directive{Command: aoe.DirectiveDelete, MAC: me}); err != nil || m.Count != 0 {
		t.Errorf("delete: %+v, %v", m, err)
	}
}
