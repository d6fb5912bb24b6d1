package replication

import (
	"github.com/replblk/replblk/bitmap"
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
	v.peerSectors, v.peerSize = p.Backing, p.Current
	if c := &v.r.conn; c.session.Version < 94 { // later the limit follows from the version
		c.maxRequest = max(minPiece, min(c.session.MaxRequest(), p.MaxBioSize&^(minPiece-1)))
	}
	before := v.size
	switch {
	case v.disk == nil:
		if v.followPeer(p) && v.st.Conn >= state.Connected && (p.Current == 0 || before != v.size) {
			v.sendSizes(p.Flags)
		}
	case v.st.Conn >= state.Connected:
		v.peerResizes(p)
	default:
		v.agreeWith(p)
	}
	return true
}

// agreeWith takes the peer's sizes into account during the handshake.
func (v *volume) agreeWith(p wire.Sizes) {
	user := p.User
	if user == 0 || v.userSize != 0 && v.userSize < user {
		user = v.userSize
	}
	size := agreeSize(p.Backing, v.disk.limit(), v.disk.sb.LASizeSectors, user)
	if v.refusesShrink(size) {
		return
	}
	v.userSize = user
	if last := v.disk.sb.LASizeSectors; last != 0 && size > last && p.Flags&wire.SizesNoResync == 0 {
		v.fresh.grew = true
	}
	v.resize(size, p.Flags&wire.SizesNoResync == 0)
}

// followPeer sizes a diskless volume by what the peer says.
func (v *volume) followPeer(p wire.Sizes) bool {
	size := p.Current
	if size == 0 && v.size != 0 {
		return true // it only asks
	}
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
	switch last := d.sb.LASizeSectors; {
	case size > last:
		d.sb.Flags |= metadata.FullSync
		v.growBitmap(last, size, resync)
		v.afterPages(clearFullSync, 0)
	case bitmap.BitsFor(size) < d.bm.Bits():
		d.bm.Resize(bitmap.BitsFor(size), false)
		v.writePages()
	}
	if d.sb.LASizeSectors != size {
		d.sb.LASizeSectors = size
		v.superChanged()
		v.freeze() // no write beyond the size on disk: the activity log could not name it
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
