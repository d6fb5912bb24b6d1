package replication

import (
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// agreeSize returns the size of the volume in sectors (spec 7.8): peer and own are what
// the disks have room for, last is what was agreed before, user what was asked for;
// zero is unknown.
func agreeSize(peer, own, last, user uint64) uint64 {
	size := last
	switch {
	case peer != 0 && own != 0:
		size = min(peer, own)
	case last == 0:
		size = max(peer, own)
	default:
		if own != 0 {
			size = min(size, own)
		}
		if peer != 0 {
			size = min(size, peer)
		}
	}
	if user != 0 && user <= size {
		return user
	}
	return size
}

// sizesArrived handles P_SIZES.
func (v *volume) sizesArrived(p wire.Sizes) bool {
	const limit = metadata.MaxSectors
	if p.Backing > limit || p.User > limit || p.Current > limit {
		return false
	}
	v.peerSectors = p.Backing
	before := v.size
	if v.disk != nil {
		if !v.agreeWith(p) {
			return true
		}
	} else if !v.followPeer(p) {
		return true
	}
	if v.st.Conn > state.WFReportParams && (p.Current == 0 || before != v.size) {
		v.sendSizes(p.Flags)
	}
	return true
}

// agreeWith takes the peer's sizes into account. It returns false if the connection was
// refused because of them.
func (v *volume) agreeWith(p wire.Sizes) bool {
	user := p.User
	if v.st.Conn == state.WFReportParams && (user == 0 || v.userSize != 0 && v.userSize < user) {
		user = v.userSize
	}
	size := agreeSize(p.Backing, v.disk.limit(), v.disk.sb.LASizeSectors, user)
	if size < v.size && v.st.Disk >= state.Outdated && (v.st.Conn < state.Connected || v.st.PeerDisk == state.Diskless) {
		v.r.note(v, NoteShrink)
		v.r.part(NoteNone)
		return false
	}
	if size < v.size && v.st.Role == state.Primary {
		v.r.note(v, NoteShrink)
		v.r.part(NoteNone)
		return false
	}
	v.userSize = user
	v.resize(size, p.Flags&wire.SizesNoResync == 0)
	return true
}

// followPeer sizes a diskless volume by what the peer says.
func (v *volume) followPeer(p wire.Sizes) bool {
	size := p.Current
	if size == 0 {
		size = p.User
	}
	if size == 0 {
		size = p.Backing
	}
	if size == 0 || size == v.size || v.size != 0 && p.Backing == 0 {
		return true
	}
	if size < v.size && v.st.Role == state.Primary {
		v.r.note(v, NoteShrink)
		v.r.part(NoteNone)
		return false
	}
	v.setSize(size)
	return true
}

// resize gives an attached volume its size. The bits of new space are set; until they
// are on disk, FULL_SYNC stands for them.
func (v *volume) resize(size uint64, resync bool) {
	d := v.disk
	if d.bm.Bits() != bitsFor(size) {
		grows := bitsFor(size) > d.bm.Bits()
		d.bm.Resize(bitsFor(size), resync)
		if grows {
			d.sb.Flags |= metadata.FullSync
		}
		d.bm.MarkAllDirty()
		v.afterPages(clearFullSync, 0)
	}
	if d.sb.LASizeSectors != size {
		d.sb.LASizeSectors = size
		v.superChanged()
	}
	v.setSize(size)
}

func (v *volume) setSize(size uint64) {
	if v.size == size {
		return
	}
	v.size = size
	e := v.r.fx.add(FxSize)
	e.Vol, e.Sector = v.num, size
}
