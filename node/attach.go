package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/buffer"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// Backing is the disk of a volume.
type Backing struct {
	Data      block.Device
	Meta      block.Device // nil: the metadata is on Data (internal)
	Placement metadata.Placement
	// Close is called when the volume does not use the devices any more, after
	// detach or when the attachment fails. May be nil.
	Close func() error
}

// backing is an attached Backing.
type backing struct {
	Backing
	data, meta block.Device
	queue      *metaQueue
	live       liveOps      // data operations in progress
	users      atomic.Int64 // direct reads in progress, plus one while attached
	idle       chan struct{}
	detach     sync.Once
	gaveUp     atomic.Bool // the core does not wait for it

	layout metadata.Layout // where the metadata lies; the runner's
	found  metadata.Layout // where it belongs, as of the last EvDevice; the runner's
	told   atomic.Uint64   // sectors of data of which the core knows
}

// enter counts a direct read; it fails when the device is on its way out.
func (b *backing) enter() bool {
	for {
		n := b.users.Load()
		if n == 0 {
			return false
		}
		if b.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *backing) leave() {
	if b.users.Add(-1) == 0 {
		close(b.idle)
	}
}

// retire lets the device of volume vol go, when what is in progress has ended. It does
// not wait: Resource.disks does.
func (r *Resource) retire(vol uint16, b *backing) {
	b.detach.Do(func() {
		b.leave()
		b.queue.close()
		go func() {
			defer r.disks.Done()
			<-b.idle
			<-b.queue.done
			if err := b.close(); err != nil {
				r.log.Warn("backing device closed with an error", "volume", vol, "err", err)
			}
			if b.gaveUp.Load() {
				r.volumes[vol].hanging.Add(-1)
				r.log.Warn("the disk that was given up has returned everything and is closed", "volume", vol)
			}
			r.publish(Change{Kind: ChangeDetached, Volume: vol})
		}()
	})
}

func (b *Backing) close() error {
	if b.Close == nil {
		return nil
	}
	return b.Close()
}

// errHanging: the disk that the volume had may still read and write.
var errHanging = errors.New("the last disk was given up and has not answered everything yet: attach again when it has, or after a restart of the machine")

var errDetached = errors.New("disk was refused or failed while it was attached")

// AttachVolume gives a volume its disk: it replays the activity log, reads the
// superblock and the bitmap, and hands them to the core. It returns when the core
// has accepted the disk, which may be still being negotiated with the peer. The
// devices belong to the resource from the call on, also if it fails. If ctx ends first
// the disk may still be attached later; Admin with AdminDetach takes it away.
func (r *Resource) AttachVolume(ctx context.Context, vol uint16, b Backing) error {
	err := r.attachVolume(ctx, vol, b)
	if err != nil {
		return fmt.Errorf("volume %d: attach: %w", vol, err)
	}
	return nil
}

func (r *Resource) attachVolume(ctx context.Context, vol uint16, b Backing) error {
	v := r.volumes[vol]
	if v == nil {
		return errors.Join(fmt.Errorf("resource %s has no such volume", r.name), b.close())
	}
	if v.Hanging() {
		return errors.Join(errHanging, b.close())
	}
	bk := &backing{Backing: b, data: b.Data, meta: b.Meta, idle: make(chan struct{})}
	if bk.meta == nil {
		bk.meta = bk.data
	}
	at, err := readMetadata(bk)
	if err != nil {
		return errors.Join(err, b.close())
	}
	bk.layout = at.Layout
	bk.told.Store(at.BackingSectors)
	bk.users.Store(1)
	bk.queue = newMetaQueue(bk.data, bk.meta, func(io replication.IOID, e replication.DiskError) {
		r.loop.post(&replication.Event{Kind: replication.EvMeta, IO: io, Err: e})
	})
	r.disks.Add(1)
	if !v.disk.CompareAndSwap(nil, bk) {
		r.retire(vol, bk)
		return errors.New("already has a disk")
	}
	w := make(chan state.Disk, 64)
	cancel := r.Watch(func(c Change) {
		disk := c.New.Disk
		if c.Kind == ChangeDetached {
			disk = state.Diskless
		}
		if c.Volume == vol && (c.Kind == ChangeState || c.Kind == ChangeDetached) {
			select {
			case w <- disk:
			default:
			}
		}
	})
	defer cancel()
	r.loop.post(&replication.Event{Kind: replication.EvAttach, Vol: vol, Attach: at})
	return waitAttached(ctx, w)
}

func waitAttached(ctx context.Context, w <-chan state.Disk) error {
	for {
		select {
		case d := <-w:
			switch {
			case d >= state.Negotiating:
				return nil
			case d == state.Diskless || d == state.Failed:
				return errDetached
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readMetadata reads what the core must know of a disk, with the activity log
// applied.
func readMetadata(b *backing) (*replication.Attach, error) {
	store := &deviceStore{b.meta}
	if _, err := mdtool.ApplyAL(store, b.Placement, mdtool.ApplyOptions{}); err != nil {
		return nil, fmt.Errorf("activity log: %w", err)
	}
	md, err := mdtool.Open(store, b.Placement)
	if err != nil {
		return nil, err
	}
	data, meta := b.data.Geometry(), b.meta.Geometry()
	layout, err := md.Superblock.Validate(b.Placement, data.Sectors, meta.Sectors)
	if err != nil {
		return nil, err
	}
	at := &replication.Attach{
		Superblock: md.Superblock, Layout: layout,
		BackingSectors: data.Sectors, Discard: data.Discard,
		PhysicalBlock: data.PhysicalBlock, LogicalBlock: data.LogicalBlock,
	}
	if size := md.Superblock.LASizeSectors; size > 0 {
		at.Bitmap, err = readBitmap(b.meta, layout, size)
	}
	return at, err
}

// bitmapChunk is how much of the bitmap is read at once.
const bitmapChunk = 1 << 20

// allocator is what a device may offer to tell what need not be read.
type allocator interface {
	// Allocation says that the first n of the sectors from sector on are a
	// hole (zero), or that they are not.
	Allocation(sector, sectors uint64) (n uint64, zero bool)
}

// readBitmap reads the bitmap of a volume of size sectors. Holes of a sparse file
// are skipped, and pages of zeroes cost no memory.
func readBitmap(d block.Device, l metadata.Layout, size uint64) (*bitmap.Bitmap, error) {
	if need := metadata.BitmapBytes(size); need > l.BitmapSectors*block.SectorSize {
		return nil, fmt.Errorf("bitmap of %d bytes for %d sectors, there is room for %d", need, size, l.BitmapSectors*block.SectorSize)
	}
	bm := bitmap.New(bitmap.BitsFor(size))
	holes, _ := d.(allocator)
	buf := buffer.Get(bitmapChunk)
	defer buffer.Put(buf)
	const pagesPerChunk = bitmapChunk / bitmap.PageSize
	for page := uint32(0); page < bm.Pages(); page += pagesPerChunk {
		sector := l.Bitmap + uint64(page)*metaBlockSectors
		// The last page may reach beyond the bitmap's area.
		n := min(uint64(bm.Pages()-page)*metaBlockSectors, bitmapChunk/block.SectorSize, l.Bitmap+l.BitmapSectors-sector)
		if holes != nil {
			if k, zero := holes.Allocation(sector, n); zero && k >= n {
				continue
			}
		}
		p := buf.B[:n*block.SectorSize]
		if err := block.ReadAt(d, p, sector); err != nil {
			return nil, fmt.Errorf("bitmap: %w", err)
		}
		for i := page; len(p) > 0; i++ {
			k := min(len(p), bitmap.PageSize)
			if err := bm.LoadPage(i, p[:k]); err != nil {
				return nil, fmt.Errorf("bitmap page %d: %w", i, err)
			}
			p = p[k:]
		}
	}
	return bm, nil
}

// deviceStore lets mdtool work on a block device.
type deviceStore struct {
	d block.Device
}

// Size returns the capacity in bytes.
func (s *deviceStore) Size() int64 { return block.Bytes(s.d.Geometry().Sectors) }

// Sync makes writes durable.
func (s *deviceStore) Sync() error { return block.FlushAll(s.d) }

// ReadAt implements io.ReaderAt.
func (s *deviceStore) ReadAt(p []byte, off int64) (int, error) {
	return s.each(p, off, func(piece, blk []byte, sector uint64, at int) error {
		if err := block.ReadAt(s.d, blk, sector); err != nil {
			return err
		}
		copy(piece, blk[at:])
		return nil
	})
}

// WriteAt implements io.WriterAt. Parts of a block are read first.
func (s *deviceStore) WriteAt(p []byte, off int64) (int, error) {
	return s.each(p, off, func(piece, blk []byte, sector uint64, at int) error {
		if len(piece) < len(blk) {
			if err := block.ReadAt(s.d, blk, sector); err != nil {
				return err
			}
		}
		copy(blk[at:], piece)
		return block.WriteAt(s.d, blk, sector)
	})
}

// each calls fn for every piece of p with aligned memory for the 4 KiB blocks that
// the piece lies in.
func (s *deviceStore) each(p []byte, off int64, fn func(piece, blk []byte, sector uint64, at int) error) (int, error) {
	size := s.Size()
	if off < 0 || off > size || int64(len(p)) > size-off {
		return 0, fmt.Errorf("%d bytes at %d of a device of %d", len(p), off, size)
	}
	buf := buffer.Get(bitmapChunk)
	defer buffer.Put(buf)
	done := 0
	for done < len(p) {
		pos := off + int64(done)
		start := pos &^ (metaBlock - 1)
		at := int(pos - start)
		n := min(len(p)-done, len(buf.B)-at)
		end := min((pos+int64(n)+metaBlock-1)&^(metaBlock-1), size)
		if err := fn(p[done:done+n], buf.B[:end-start], uint64(start)/block.SectorSize, at); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
