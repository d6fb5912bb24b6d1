package metadata

import (
	"fmt"
	"strconv"
	"strings"
)

// giFlags are the flags of a generation identifier line, in its order.
var giFlags = [...]Flags{Consistent, WasUpToDate, PrimaryInd, ConnectedInd, FullSync, PeerOutDated, CrashedPrimary}

// GI returns the line that drbdmeta get-gi prints, without a newline: four UUIDs
// of 16 hexadecimal digits and seven flags, separated by colons.
func (sb *Superblock) GI() string {
	b := make([]byte, 0, 4*17+2*len(giFlags))
	for i, u := range sb.UUIDs {
		if i > 0 {
			b = append(b, ':')
		}
		b = fmt.Appendf(b, "%016X", u)
	}
	for _, f := range giFlags {
		if sb.Flags.Has(f) {
			b = append(b, ":1"...)
		} else {
			b = append(b, ":0"...)
		}
	}
	return string(b)
}

// SetGI changes UUIDs and flags to those of a line in the form of GI. Empty and
// missing fields keep their value. On an error nothing is changed.
func (sb *Superblock) SetGI(s string) error {
	fields := strings.Split(s, ":")
	if len(fields) > len(sb.UUIDs)+len(giFlags) {
		return fmt.Errorf("generation identifier %q has %d fields, want at most %d", s, len(fields), len(sb.UUIDs)+len(giFlags))
	}
	n := *sb
	for i, f := range fields {
		if f == "" {
			continue
		}
		if err := n.setGIField(i, f); err != nil {
			return fmt.Errorf("generation identifier %q: field %d: %w", s, i+1, err)
		}
	}
	*sb = n
	return nil
}

func (sb *Superblock) setGIField(i int, f string) error {
	if i < len(sb.UUIDs) {
		v, err := strconv.ParseUint(strings.TrimPrefix(f, "0x"), 16, 64)
		if err != nil {
			return fmt.Errorf("%q is not a hexadecimal number of 64 bits", f)
		}
		sb.UUIDs[i] = v
		return nil
	}
	flag := giFlags[i-len(sb.UUIDs)]
	switch f {
	case "0":
		sb.Flags &^= flag
	case "1":
		sb.Flags |= flag
	default:
		return fmt.Errorf("%q is not 0 or 1", f)
	}
	return nil
}
