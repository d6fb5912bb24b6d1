package mdtool

import (
	"fmt"

	"github.com/replblk/replblk/metadata"
)

// Ask is how an operation asks before it destroys something. Force answers yes;
// without it Confirm is called with the question; a nil Confirm means that there
// is nobody to ask, which is a no.
type Ask struct {
	Force   bool
	Confirm func(question string) bool
}

func (a Ask) ask(question string) error {
	if a.Force || a.Confirm != nil && a.Confirm(question) {
		return nil
	}
	return exitWith(ExitCancelled, ErrCancelled)
}

// Wipe zeroes the superblock. The bitmap and the log stay, but nothing finds them.
func Wipe(s Store, p metadata.Placement, a Ask) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	if err := a.ask("Do you really want to wipe out the DRBD meta data?"); err != nil {
		return err
	}
	return wipeSuperblock(s, m.Layout.Superblock)
}

func wipeSuperblock(s Store, sector uint64) error {
	if err := writeZeroes(s, sector, metadata.SuperblockSectors); err != nil {
		return err
	}
	return syncStore(s)
}

// GetGI returns the generation identifiers as drbdmeta get-gi prints them.
func GetGI(s Store, p metadata.Placement) (string, error) {
	m, err := Open(s, p)
	if err != nil {
		return "", err
	}
	return m.Superblock.GI(), nil
}

// SetGI changes generation identifiers; gi has the form of GetGI, and empty or
// missing fields keep their value.
func SetGI(s Store, p metadata.Placement, gi string, a Ask) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	old := m.Superblock.GI()
	if err := m.Superblock.SetGI(gi); err != nil {
		return exitWith(ExitConfig, err)
	}
	question := fmt.Sprintf("previously %s\nset GI to  %s\n\nWrite new GI to disk?", old, m.Superblock.GI())
	if err := a.ask(question); err != nil {
		return err
	}
	return m.write()
}

// Outdate says that the peer has newer data. Data that is not even consistent
// cannot be outdated: exit code 5.
func Outdate(s Store, p metadata.Placement) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	if !m.Superblock.Flags.Has(metadata.Consistent) {
		return exit(ExitInconsistent, "device is inconsistent")
	}
	m.Superblock.Flags &^= metadata.WasUpToDate
	return m.write()
}

// Invalidate gives the data up: the next connection copies all of it from the peer.
func Invalidate(s Store, p metadata.Placement) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	m.Superblock.Flags &^= metadata.Consistent | metadata.WasUpToDate
	m.Superblock.Flags |= metadata.FullSync
	return m.write()
}

// DiskState returns what the metadata says of the data: drbdmeta dstate.
func DiskState(s Store, p metadata.Placement) (metadata.DiskState, error) {
	m, err := Open(s, p)
	if err != nil {
		return 0, err
	}
	return m.Superblock.AttachState(metadata.AttachContext{}).Disk, nil
}

// SetDeviceUUID stores the random number by which a device is recognised.
func SetDeviceUUID(s Store, p metadata.Placement, uuid uint64) error {
	m, err := Open(s, p)
	if err != nil {
		return err
	}
	m.Superblock.DeviceUUID = uuid
	return m.write()
}
