package metadata

// UUIDs are the generation identifiers of a volume, as on disk and on the wire:
// current, bitmap, history 1 (younger), history 2 (older). See section 7.1.
//
// Bit 0 is not part of the identity: in the current UUID it says that the node
// is Primary, and it stays in the value when that is rotated into another slot.
// Compare with Same, never with ==.
type UUIDs [4]uint64

// Slot names a place in UUIDs.
type Slot uint8

// The slots.
const (
	SlotCurrent Slot = iota
	SlotBitmap
	SlotHistory1
	SlotHistory2
)

const (
	// JustCreated is the current UUID of a volume that never had data.
	JustCreated uint64 = 4
	// SyncIncrement makes the UUID of a resync from the bitmap UUID it is based on.
	SyncIncrement uint64 = 0x0001000000000000

	primaryBit uint64 = 1
)

// Current returns the UUID that names the present generation of the data.
func (u *UUIDs) Current() uint64 { return u[SlotCurrent] }

// Bitmap returns the generation against which the bitmap records differences; 0
// when it does not.
func (u *UUIDs) Bitmap() uint64 { return u[SlotBitmap] }

// History1 returns the younger of the past generations.
func (u *UUIDs) History1() uint64 { return u[SlotHistory1] }

// History2 returns the older of the past generations.
func (u *UUIDs) History2() uint64 { return u[SlotHistory2] }

// SetCurrent stores v as the current UUID with bit 0 telling the role.
func (u *UUIDs) SetCurrent(v uint64, primary bool) { u[SlotCurrent] = withRole(v, primary) }

// SetRole makes bit 0 of the current UUID tell the role, as every change of role does.
func (u *UUIDs) SetRole(primary bool) { u.SetCurrent(u[SlotCurrent], primary) }

// RotateSet stores v in the slot; a value that was there becomes the younger
// history. A current UUID gets the bit that tells the role.
func (u *UUIDs) RotateSet(s Slot, v uint64, primary bool) {
	if old := u[s]; old != 0 {
		u[SlotHistory2] = u[SlotHistory1]
		u[SlotHistory1] = old
	}
	if s == SlotCurrent {
		v = withRole(v, primary)
	}
	u[s] = v
}

// NewCurrent begins a generation: from now on the bitmap records what differs
// from the one that was current. A bitmap UUID that was still set is lost, so the
// caller should have checked that there is none; the result says whether there was.
func (u *UUIDs) NewCurrent(random uint64, primary bool) (lostBitmap bool) {
	lostBitmap = u[SlotBitmap] != 0
	u[SlotBitmap] = u[SlotCurrent]
	u.SetCurrent(random, primary)
	return lostBitmap
}

// ClearBitmap ends the tracking of differences; the base becomes history.
func (u *UUIDs) ClearBitmap() {
	if u[SlotBitmap] == 0 {
		return
	}
	u[SlotHistory2] = u[SlotHistory1]
	u[SlotHistory1] = u[SlotBitmap]
	u[SlotBitmap] = 0
}

// SyncUUID returns the UUID that a source gives a resync: derived from the
// generation the bitmap is based on, or random if there is none (section 7.2).
func (u *UUIDs) SyncUUID(random uint64) uint64 {
	if b := u[SlotBitmap]; b != 0 && b != JustCreated {
		return b + SyncIncrement
	}
	return random
}

// SameUUID says whether a and b name the same generation.
func SameUUID(a, b uint64) bool { return a&^primaryBit == b&^primaryBit }

// WasPrimary says whether bit 0 of a UUID is set: the node was Primary when the
// value was written as its current UUID.
func WasPrimary(v uint64) bool { return v&primaryBit != 0 }

// Same says whether two sets name the same generations in every slot.
func (u *UUIDs) Same(o *UUIDs) bool {
	for i := range u {
		if !SameUUID(u[i], o[i]) {
			return false
		}
	}
	return true
}

func withRole(v uint64, primary bool) uint64 {
	if primary {
		return v | primaryBit
	}
	return v &^ primaryBit
}
