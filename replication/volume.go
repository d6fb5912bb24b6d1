package replication

import (
	"github.com/replblk/replblk/bitmap"
	"github.com/replblk/replblk/replication/state"
)

// cancelLate takes the right to clear bits away from older writes to a range that has
// just gone out of sync: their news is about contents that are no more.
func (v *volume) cancelLate(sector, sectors uint64) {
	if v.r.ios.late == 0 {
		return
	}
	first, last := bitmap.SectorsOut(sector, sectors)
	for i := range v.r.ios.list {
		q := &v.r.ios.list[i]
		if q.clearLate && q.vol == v && q.sector < last*bitmap.SectorsPerBit && first*bitmap.SectorsPerBit < q.end() {
			q.clearLate = false
			v.r.ios.late--
		}
	}
}

// markOut sets the bits of every block that the range touches and returns how many
// changed.
func (v *volume) markOut(sector, sectors uint64) uint64 {
	if v.disk == nil || v.disk.bm == nil {
		return 0
	}
	v.cancelLate(sector, sectors)
	return v.disk.bm.SetRange(bitmap.SectorsOut(sector, sectors))
}

// markIn clears the bits of every block that the range covers.
func (v *volume) markIn(sector, sectors uint64) {
	if v.disk == nil || v.disk.bm == nil {
		return
	}
	if first, last := bitmap.SectorsIn(sector, sectors, v.size); first < last {
		v.disk.bm.ClearRange(first, last)
	}
}

// publishReads tells the driver when it may read without asking: not where the core has to
// keep the time.
func (v *volume) publishReads() {
	ok := v.localReadable() && v.cfg.DiskTimeoutTenths == 0 && len(v.mixed) == 0 && v.st.Role == state.Primary && v.frozen == 0 && !v.st.Suspended() && !v.r.conn.doubted
	if ok == v.readsLocal {
		return
	}
	v.readsLocal = ok
	e := v.r.fx.add(FxReads)
	e.Vol, e.On = v.num, ok
}

// inside says whether a request of the given size lies within the volume.
func (v *volume) inside(sector uint64, size uint32) bool {
	n := uint64(size) >> 9
	return size != 0 && size%512 == 0 && sector <= v.size && n <= v.size-sector
}

// inSync says whether an Inconsistent disk can serve a range: no bit of it is set.
func (v *volume) inSync(sector, sectors uint64) bool {
	if v.st.Disk != state.Inconsistent || !v.writesLocally() || v.disk.bm == nil {
		return false
	}
	return v.disk.bm.CountRange(bitmap.SectorsOut(sector, sectors)) == 0
}

// inService says whether there is a disk, and none that is on its way out.
func (v *volume) inService() bool { return v.disk != nil && !v.disk.failed }

// writesLocally says whether writes go to the own disk.
func (v *volume) writesLocally() bool { return v.inService() && v.st.Disk >= state.Inconsistent }

// replicates says whether writes go to the peer (spec 6.1).
func (v *volume) replicates() bool {
	s := v.st
	return v.r.conn.established() && s.Conn >= state.Connected &&
		(s.PeerDisk == state.UpToDate || s.PeerDisk >= state.Inconsistent && s.Conn >= state.WFBitMapT && s.Conn < state.Ahead)
}

// notes says whether the peer is told about writes that it does not get.
func (v *volume) notes() bool {
	return v.r.conn.established() && v.r.session().Version >= 96 && (v.st.Conn == state.Ahead || v.st.Conn == state.WFBitMapS)
}

// localReadable says whether reads of the volume may be served from its disk without
// a look at the bitmap.
func (v *volume) localReadable() bool { return v.inService() && v.st.Disk == state.UpToDate }
