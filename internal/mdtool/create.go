package mdtool

import (
	"fmt"
	"io"

	"github.com/replblk/replblk/metadata"
)

// Limits of the options of Create.
const (
	maxALBytes      = 32 << 20 // the largest activity log that drbdmeta makes
	maxPeerBIOBytes = 1 << 20
)

// CreateOptions are those of create-md.
type CreateOptions struct {
	Ask
	Striping        metadata.Striping
	PeerMaxBIOBytes uint32
	DeviceUUID      uint64
	DataSectors     uint64    // size of the data device if it is another one, 0 if unknown
	Out             io.Writer // what drbdmeta prints; nil for nothing
}

// Create makes new metadata: create-md. It asks before it overwrites metadata or
// data, and refuses, forced or not, to cut off the end of a file system.
func Create(s Store, p metadata.Placement, o CreateOptions) (metadata.Layout, error) {
	c := creator{store: s, out: o.Out, ask: o.Ask}
	var err error
	c.layout, err = metadata.NewLayout(p, backingSectors(p, s, o.DataSectors), sectors(s), o.Striping)
	switch {
	case err != nil:
		return c.layout, exitWith(ExitConfig, err)
	case c.layout.ActivityLogSectors*512 > maxALBytes:
		return c.layout, exit(ExitConfig, "activity log of %d bytes, the limit is %d", c.layout.ActivityLogSectors*512, maxALBytes)
	case o.PeerMaxBIOBytes > maxPeerBIOBytes:
		return c.layout, exit(ExitConfig, "peer-max-bio-size is %d, the limit is %d", o.PeerMaxBIOBytes, maxPeerBIOBytes)
	}
	if err := c.prepare(o.DataSectors); err != nil {
		return c.layout, err
	}
	sb := metadata.NewSuperblock(c.layout)
	sb.PeerMaxBIOBytes = o.PeerMaxBIOBytes
	sb.DeviceUUID = o.DeviceUUID
	return c.layout, c.finish(sb)
}

func backingSectors(p metadata.Placement, s Store, dataSectors uint64) uint64 {
	if p.IsInternal() {
		return sectors(s)
	}
	return dataSectors
}

// creator makes metadata in steps shared by Create and Restore.
type creator struct {
	store  Store
	layout metadata.Layout
	out    io.Writer
	ask    Ask
}

func (c *creator) printf(format string, args ...any) {
	if c.out != nil {
		// What is printed is for a human; the work does not depend on it.
		_, _ = fmt.Fprintf(c.out, format, args...)
	}
}

// prepare asks what is to be asked, destroys an old superblock and empties log
// and bitmap. The old superblock goes first and for good: with an empty bitmap it
// would say that two devices are equal which are not.
func (c *creator) prepare(dataSectors uint64) error {
	old, err := c.findOld()
	if err != nil {
		return err
	}
	if err := c.checkData(); err != nil {
		return err
	}
	if old {
		if err := wipeSuperblock(c.store, c.layout.Superblock); err != nil {
			return err
		}
	}
	c.printf("initializing activity log\n")
	if err := writeEmptyLog(c.store, c.layout, 0); err != nil {
		return err
	}
	n := c.bitmapSectors(dataSectors)
	c.printf("initializing bitmap (%d KB) to all zero\n", n/2)
	return writeZeroes(c.store, c.layout.Bitmap, n)
}

// bitmapSectors is how much of the bitmap area is emptied: as drbdmeta does, what
// a data device of the size of the metadata device needs, and more if the data
// device is known to be larger.
func (c *creator) bitmapSectors(dataSectors uint64) uint64 {
	n := metadata.BitmapBytes(max(dataSectors, sectors(c.store))) / 512
	return min(n, c.layout.BitmapSectors)
}

func (c *creator) finish(sb metadata.Superblock) error {
	c.printf("Writing meta data...\n")
	if err := syncStore(c.store); err != nil {
		return err
	}
	m := Meta{Superblock: sb, Layout: c.layout, store: c.store}
	if err := m.write(); err != nil {
		return err
	}
	c.printf("New drbd meta data block successfully created.\n")
	return nil
}

// findOld looks for a superblock of any version where the new one will be.
func (c *creator) findOld() (bool, error) {
	var buf [metadata.SuperblockSize]byte
	if err := readAt(c.store, buf[:], c.layout.Superblock); err != nil {
		return false, err
	}
	v := drbdVersion(buf[:])
	if v == "" {
		return false, nil
	}
	c.printf("There appears to be a %s meta data block already in place at byte offset %d\n", v, c.layout.Superblock*512)
	return true, c.ask.ask("Do you really want to overwrite the existing meta-data?")
}

// checkData looks at what the data area, or the device that is to become
// metadata, holds now.
func (c *creator) checkData() error {
	found, err := Detect(c.store)
	if err != nil || found.Name == "" {
		return err
	}
	usable := c.layout.Bitmap / 2
	c.printf("md_offset %d\nal_offset %d\nbm_offset %d\n\nFound %s\n",
		c.layout.Superblock*512, c.layout.ActivityLog*512, c.layout.Bitmap*512, found.Name)
	switch {
	case found.Bytes == 0 || !c.layout.Placement.IsInternal():
		c.printf("\n ==> This might destroy existing data! <==\n")
	default:
		c.printf("%12d kB data area apparently used\n%12d kB left usable by current configuration\n", found.Bytes/1024, usable)
		if found.Bytes > c.layout.Bitmap*512 {
			return exit(ExitWouldCut, "%s uses %d kB, internal metadata would leave %d kB: "+
				"use external meta data, shrink the file system first, or zero out the device", found.Name, found.Bytes/1024, usable)
		}
		c.printf("\nEven though it looks like this would place the new meta data into\n" +
			"unused space, you still need to confirm, as this is only a guess.\n")
	}
	return c.ask.ask("Do you want to proceed?")
}
