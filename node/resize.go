package node

import (
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication"
)

// refresher is a backing device that may change its size while it is open.
type refresher interface {
	// Refresh looks how large the device is now.
	Refresh() (changed bool, err error)
}

// measureDevice tells the core how large the devices of a volume are now, and where its
// metadata belongs. Looking may take as long as a device likes, so it does not happen here.
func (r *Resource) measureDevice(vol uint16) {
	b := r.backing(vol)
	if b == nil || !b.enter() {
		r.loop.put(&replication.Event{Kind: replication.EvDevice, Vol: vol, Err: replication.DiskIOError})
		return
	}
	go func() {
		r.measured(vol, b)
		b.leave()
		r.loop.kick()
	}()
}

// remeasure tells the core of devices that have another size than it knows, because it is
// about to tell the peer.
func (r *Resource) remeasure() {
	for _, vol := range r.numbers {
		b := r.backing(vol)
		if b == nil || !b.enter() {
			continue
		}
		if f, ok := b.data.(refresher); ok {
			if _, err := f.Refresh(); err == nil && b.data.Geometry().Sectors != b.told.Load() {
				r.measured(vol, b)
			}
		}
		b.leave()
	}
}

// measured looks, and puts the news into the mailbox.
func (r *Resource) measured(vol uint16, b *backing) {
	ev := replication.Event{Kind: replication.EvDevice, Vol: vol}
	var layout metadata.Layout
	r.loop.call(func() { layout = b.layout })
	found, err := refresh(b, layout)
	if err == nil {
		ev.Device = &replication.Device{BackingSectors: b.data.Geometry().Sectors, Layout: found}
		b.told.Store(ev.Device.BackingSectors)
	} else {
		r.log.Warn("device cannot be measured", "volume", vol, "err", err)
		ev.Err = replication.DiskIOError
	}
	r.loop.call(func() { b.found = found })
	r.loop.put(&ev)
}

func refresh(b *backing, layout metadata.Layout) (metadata.Layout, error) {
	for _, d := range []block.Device{b.data, b.meta} {
		if f, ok := d.(refresher); ok {
			if _, err := f.Refresh(); err != nil {
				return layout, err
			}
		}
	}
	return layout.Grown(b.data.Geometry().Sectors)
}

// moveMeta moves the metadata of a volume. The core writes none meanwhile, and nothing of it
// is in the queue: it has waited for that.
func (r *Resource) moveMeta(vol uint16) {
	b := r.backing(vol)
	if b == nil || !b.enter() {
		r.loop.put(&replication.Event{Kind: replication.EvMoved, Vol: vol, Err: replication.DiskIOError})
		return
	}
	from, to := b.layout, b.found
	b.layout = to
	go func() {
		err := mdtool.Move(&deviceStore{b.meta}, from, to)
		if err != nil {
			r.log.Error("metadata cannot be moved", "volume", vol, "sector", from.Superblock, "to", to.Superblock, "err", err)
		} else {
			r.log.Info("metadata moved to the new end of the device", "volume", vol, "sector", from.Superblock, "to", to.Superblock)
			r.publish(Change{Kind: ChangeMoved, Volume: vol})
		}
		b.leave()
		r.loop.post(&replication.Event{Kind: replication.EvMoved, Vol: vol, Err: diskError(err)})
	}()
}

// backing is the disk of a volume, nil if it has none.
func (r *Resource) backing(vol uint16) *backing {
	if v := r.volumes[vol]; v != nil {
		return v.disk.Load()
	}
	return nil
}
