package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
)

// open fills in everything that Open has to find out about the backing.
func (f *File) open() error {
	var st unix.Stat_t
	if err := unix.Stat(f.path, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFBLK:
		f.blockDev = true
	default:
		return errors.New("neither a file nor a block device")
	}
	if err := f.openFD(st); err != nil {
		return err
	}
	if err := f.lock(); err != nil {
		return err
	}
	size, err := f.measure()
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	f.size.Store(size)
	f.describe(st)
	if err := f.setDirect(size); err != nil {
		return err
	}
	f.remap(size)
	return nil
}

// openFD opens the path and makes sure that it still is what st says.
func (f *File) openFD(st unix.Stat_t) error {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if f.opt.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if f.blockDev && !f.opt.NoLock {
		flags |= unix.O_EXCL
	}
	fd, err := openRetry(f.path, flags)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("in use by someone else: %w", err)
	}
	if err != nil {
		return err
	}
	f.fd = fd
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return err
	}
	if now.Dev != st.Dev || now.Ino != st.Ino || now.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		return errors.New("replaced while it was being opened")
	}
	return nil
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// lock takes ownership of a file. Block devices were opened with O_EXCL.
func (f *File) lock() error {
	if f.blockDev || f.opt.NoLock {
		return nil
	}
	how := unix.LOCK_EX | unix.LOCK_NB
	if f.opt.ReadOnly {
		how = unix.LOCK_SH | unix.LOCK_NB
	}
	for {
		err := unix.Flock(f.fd, how)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("in use by someone else: %w", unix.EBUSY)
		}
		if err != unix.EINTR {
			return err
		}
	}
}

// measure returns the current size in bytes of a file or block device.
func (f *File) measure() (int64, error) {
	if f.blockDev {
		return unix.Seek(f.fd, 0, unix.SEEK_END)
	}
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	return st.Size, err
}

func (f *File) describe(st unix.Stat_t) {
	f.geometry = block.Geometry{
		LogicalBlock:  block.SectorSize,
		PhysicalBlock: 4096,
		Discard:       true,
		ReadOnly:      f.opt.ReadOnly,
	}
	if !f.blockDev {
		return
	}
	if n, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET); err == nil && n >= block.SectorSize {
		f.geometry.LogicalBlock = uint32(n)
	}
	if n, err := unix.IoctlGetUint32(f.fd, unix.BLKPBSZGET); err == nil && n >= f.geometry.LogicalBlock {
		f.geometry.PhysicalBlock = n
	}
	if n, err := unix.IoctlGetUint32(f.fd, unix.BLKROGET); err == nil && n != 0 {
		f.geometry.ReadOnly = true
	}
	f.geometry.Rotational = queueLimit(st.Rdev, "rotational") == 1
	f.geometry.Discard = queueLimit(st.Rdev, "discard_max_bytes") > 0
}

// queueLimit reads an attribute of a block device's queue, which partitions
// have at their parent; 0 if there is none.
func queueLimit(rdev uint64, name string) int64 {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	for _, d := range []string{"queue", "../queue"} {
		text, err := os.ReadFile(filepath.Join(dir, d, name))
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return n
	}
	return 0
}

// setDirect turns on O_DIRECT as the options ask. DirectOn never falls back in
// silence: who asked for it counts on an empty page cache (D20).
func (f *File) setDirect(size int64) error {
	if f.opt.Direct == DirectOff {
		return nil
	}
	err := f.tryDirect(size)
	if err == nil {
		f.direct = true
		return nil
	}
	f.align, f.memAlign = 1, 1
	if f.opt.Direct == DirectOn {
		return fmt.Errorf("direct I/O: %w", err)
	}
	return f.setDirectFlag(false)
}

func (f *File) tryDirect(size int64) error {
	if f.inMemory() {
		// Newer kernels take O_DIRECT, and copy to and from the page cache all the same: with
		// nothing else to keep the data in, sectors would not be whole.
		return fmt.Errorf("a file system in memory: %w", unix.EOPNOTSUPP)
	}
	if err := f.setDirectFlag(true); err != nil {
		return err
	}
	if err := f.findAlignment(size); err != nil {
		return err
	}
	if size%int64(f.align) != 0 {
		return fmt.Errorf("size %d is not a multiple of the alignment %d", size, f.align)
	}
	return nil
}

// inMemory says whether the backing is a file of a file system that has no disk.
func (f *File) inMemory() bool {
	var fs unix.Statfs_t
	return !f.blockDev && unix.Fstatfs(f.fd, &fs) == nil && (fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC)
}

func (f *File) setDirectFlag(on bool) error {
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags)
	return err
}

// findAlignment asks statx, and where the kernel or the file system does not
// say, tries which reads are accepted. An empty file has nothing to try with.
func (f *File) findAlignment(size int64) error {
	var stx unix.Statx_t
	err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 {
		if stx.Dio_offset_align == 0 || stx.Dio_offset_align > buffer.Align || stx.Dio_mem_align > buffer.Align {
			return fmt.Errorf("alignment of %d bytes: %w", stx.Dio_offset_align, unix.EOPNOTSUPP)
		}
		f.align = max(int(stx.Dio_offset_align), block.SectorSize)
		f.memAlign = max(int(stx.Dio_mem_align), 1)
		return nil
	}
	f.align, f.memAlign = buffer.Align, buffer.Align
	b := buffer.Get(buffer.Align)
	defer buffer.Put(b)
	for _, n := range []int{block.SectorSize, 1024, 2048, buffer.Align} {
		if size < int64(n) {
			continue
		}
		if err = f.preadFull(b.B[:n], 0); err == nil {
			f.align, f.memAlign = n, max(n, block.SectorSize)
			return nil
		}
	}
	if size == 0 {
		return nil
	}
	return err
}
