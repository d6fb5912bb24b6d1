package state

import "strconv"

// Role says whether applications may use the volume on a node.
type Role uint8

// Roles, with their values on the wire.
const (
	Unknown   Role = 0 // the peer's role while not connected
	Primary   Role = 1
	Secondary Role = 2

	roleMask Role = 3
)

var roleNames = [...]string{Unknown: "Unknown", Primary: "Primary", Secondary: "Secondary"}

// String returns DRBD's name of the role.
func (r Role) String() string { return name("Role", roleNames[:], uint8(r)) }

// Valid says whether r is a role and not a mask or garbage.
func (r Role) Valid() bool { return int(r) < len(roleNames) }

// name returns the i-th name, or kind(i) for a value that has none, so that
// garbage from the wire is visible as a number.
func name(kind string, names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return kind + "(" + strconv.Itoa(int(i)) + ")"
}
