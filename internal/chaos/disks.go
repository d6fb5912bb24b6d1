package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Units of comparisons in bytes: what is reported, and what is read at once.
const (
	blockSize = 4096
	readSize  = 64 << 10
)

// Disk reads the backing file of a host beside the daemon.
type Disk struct{ f *os.File }

// OpenDisk opens the disk of a host.
func (h *Host) OpenDisk() (*Disk, error) {
	f, err := os.Open(h.Path(".img"))
	if err != nil {
		return nil, err
	}
	return &Disk{f}, nil
}

// Read reads p at off, as an nbdclient.Client does.
func (d *Disk) Read(p []byte, off uint64) error {
	_, err := d.f.ReadAt(p, int64(off))
	return err
}

// Close closes the file.
func (d *Disk) Close() error { return d.f.Close() }

// Differences compares the data on both disks and returns the offsets of the blocks of
// 4096 bytes that differ. Nobody may write meanwhile. Holes are skipped.
func (p *Pair) Differences() ([]uint64, error) {
	var disks [2]*Disk
	for i, h := range p.Hosts {
		d, err := h.OpenDisk()
		if err != nil {
			return nil, err
		}
		defer func() { _ = d.Close() }()
		disks[i] = d
	}
	found := make(map[uint64]bool)
	for i, d := range disks {
		other := make([]byte, readSize)
		err := d.eachPiece(p.Size, func(off uint64, data []byte) error {
			if err := disks[1-i].Read(other[:len(data)], off); err != nil {
				return err
			}
			if bytes.Equal(data, other[:len(data)]) {
				return nil
			}
			for at := 0; at < len(data); at += blockSize {
				end := min(at+blockSize, len(data))
				if !bytes.Equal(data[at:end], other[at:end]) {
					found[off+uint64(at)] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("compare disks: %w", err)
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// eachPiece calls fn for everything below size that is not in a hole, in pieces that
// begin at multiples of blockSize.
func (d *Disk) eachPiece(size uint64, fn func(off uint64, data []byte) error) error {
	buf := make([]byte, readSize)
	for off := int64(0); off < int64(size); {
		data, err := d.f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		if err != nil {
			return err
		}
		hole, err := d.f.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for off = data &^ (blockSize - 1); off < min(hole, int64(size)); off += readSize {
			n := min(readSize, int64(size)-off)
			if _, err := d.f.ReadAt(buf[:n], off); err != nil {
				return err
			}
			if err := fn(uint64(off), buf[:n]); err != nil {
				return err
			}
		}
	}
	return nil
}
