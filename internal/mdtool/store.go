package mdtool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/replblk/replblk/metadata"
)

// Store is the device with the metadata. Writes are durable after Sync.
type Store interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64 // in bytes
}

// File is a Store on a block device or a regular file, locked against others.
type File struct {
	f    *os.File
	size int64
}

// OpenOptions say how a File is opened.
type OpenOptions struct {
	Writable     bool
	AllowRegular bool // a regular file will do; without it only a block device
}

// OpenFile opens and locks path. A block device is opened O_EXCL: that fails
// while it is mounted, attached or part of something else.
func OpenFile(path string, o OpenOptions) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, exitWith(ExitDevice, err)
	}
	flags := os.O_RDONLY
	if o.Writable {
		flags = os.O_RDWR
	}
	switch mode := st.Mode(); {
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		flags |= os.O_EXCL
	case !mode.IsRegular() || !o.AllowRegular:
		return nil, exit(ExitDevice, "%s is not a block device", path)
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, exitWith(ExitDevice, err)
	}
	s, err := lockAndMeasure(f)
	if err != nil {
		_ = f.Close() // the lock's error is the one to report
		return nil, exitWith(ExitDevice, err)
	}
	return s, nil
}

func lockAndMeasure(f *os.File) (*File, error) {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another program", f.Name())
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	// Seeking to the end works for devices, whose stat size is 0.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", f.Name(), err)
	}
	return &File{f, size}, nil
}

// ReadAt implements Store.
func (s *File) ReadAt(p []byte, off int64) (int, error) { return s.f.ReadAt(p, off) }

// WriteAt implements Store.
func (s *File) WriteAt(p []byte, off int64) (int, error) { return s.f.WriteAt(p, off) }

// Sync makes all writes durable.
func (s *File) Sync() error { return syscall.Fdatasync(int(s.f.Fd())) }

// Size returns the size in bytes when the file was opened.
func (s *File) Size() int64 { return s.size }

// Close gives up the lock.
func (s *File) Close() error { return s.f.Close() }

func sectors(s Store) uint64 { return uint64(max(s.Size(), 0)) / 512 }

func readAt(s Store, p []byte, sector uint64) error {
	off := int64(sector * 512)
	if n, err := s.ReadAt(p, off); n < len(p) {
		return exit(ExitDevice, "reading %d bytes at byte %d: %w", len(p), off, err)
	}
	return nil
}

func writeAt(s Store, p []byte, sector uint64) error {
	off := int64(sector * 512)
	if _, err := s.WriteAt(p, off); err != nil {
		return exit(ExitDevice, "writing %d bytes at byte %d: %w", len(p), off, err)
	}
	return nil
}

func syncStore(s Store) error {
	if err := s.Sync(); err != nil {
		return exit(ExitDevice, "flushing metadata: %w", err)
	}
	return nil
}

// zeroChunk is how much is zeroed by one write.
const zeroChunk = 1 << 20

func writeZeroes(s Store, sector, count uint64) error {
	buf := make([]byte, min(count*512, zeroChunk))
	for count > 0 {
		n := min(count, zeroChunk/512)
		if err := writeAt(s, buf[:n*512], sector); err != nil {
			return err
		}
		sector, count = sector+n, count-n
	}
	return nil
}

// Meta is metadata that was found and is in order.
type Meta struct {
	Superblock metadata.Superblock
	Layout     metadata.Layout
	store      Store
}

// Open reads and checks the superblock. Unclean metadata is not an error here:
// see Meta.Clean.
func Open(s Store, p metadata.Placement) (*Meta, error) {
	n := sectors(s)
	start, err := p.SuperblockSector(n)
	if err != nil {
		return nil, exitWith(ExitConfig, err)
	}
	var buf [metadata.SuperblockSize]byte
	if err := readAt(s, buf[:], start); err != nil {
		return nil, err
	}
	m := &Meta{store: s}
	if err := m.Superblock.Decode(buf[:]); err != nil {
		return nil, exit(ExitCancelled, "%w: %w", ErrNoMetadata, err)
	}
	backing := uint64(0)
	if p.IsInternal() {
		backing = n
	}
	m.Layout, err = m.Superblock.Validate(p, backing, n)
	if err != nil && !errors.Is(err, metadata.ErrUnclean) {
		return nil, exit(ExitCancelled, "%w: %w", ErrNoMetadata, err)
	}
	return m, nil
}

// Clean says whether the activity log need not be replayed.
func (m *Meta) Clean() bool {
	return !m.Superblock.Unclean && m.Superblock.Flags.Has(metadata.ALClean)
}

// write writes the superblock and makes it and all before it durable.
func (m *Meta) write() error {
	if err := writeAt(m.store, m.Superblock.AppendTo(nil), m.Layout.Superblock); err != nil {
		return err
	}
	return syncStore(m.store)
}
