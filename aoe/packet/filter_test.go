package packet

import (
	"testing"

	"golang.org/x/net/bpf"
)

func frame(etherType uint16, flags byte, shelf uint16, slot, cmd byte) []byte {
	b := make([]byte, 60)
	b[12], b[13] = byte(etherType>>8), byte(etherType)
	b[14], b[16], b[17], b[18], b[19] = flags, byte(shelf>>8), byte(shelf), slot, cmd
	return b
}

func TestFilter(t *testing.T) {
	two := Filter{Targets: []Address{{7, 3}, {0x0102, 0}}}
	many := Filter{}
	for i := range maxFilterTargets + 1 {
		many.Targets = append(many.Targets, Address{uint16(i), 0})
	}
	for _, tc := range []struct {
		name   string
		filter Filter
		frame  []byte
		pass   bool
	}{
		{"first target", two, frame(0x88a2, 0x10, 7, 3, 0), true},
		{"second target", two, frame(0x88a2, 0x10, 0x0102, 0, 1), true},
		{"mix of two targets", two, frame(0x88a2, 0x10, 7, 0, 0), false},
		{"other slot", two, frame(0x88a2, 0x10, 7, 4, 0), false},
		{"any shelf", two, frame(0x88a2, 0x10, 0xffff, 3, 0), true},
		{"any shelf, other slot", two, frame(0x88a2, 0x10, 0xffff, 9, 0), false},
		{"any slot", two, frame(0x88a2, 0x10, 7, 0xff, 0), true},
		{"any", two, frame(0x88a2, 0x10, 0xffff, 0xff, 0), true},
		{"other type", two, frame(0x0800, 0x10, 7, 3, 0), false},
		{"response", two, frame(0x88a2, 0x18, 7, 3, 0), false},
		{"config response", two, frame(0x88a2, 0x18, 7, 3, 1), true},
		{"response between the ends", two, frame(0x88a2, 0x18, 7, 3, 0xf0), true},
		{"standby: request between the ends", Filter{}, frame(0x88a2, 0x10, 7, 3, 0xf0), false},
		{"too short", two, frame(0x88a2, 0x10, 7, 3, 0)[:15], false},
		{"standby: request", Filter{}, frame(0x88a2, 0x10, 7, 3, 0), false},
		{"standby: config response", Filter{}, frame(0x88a2, 0x18, 7, 3, 1), true},
		{"more targets than the program takes", many, frame(0x88a2, 0x10, 700, 3, 0), true},
		{"everything: response", Filter{Everything: true}, frame(0x88a2, 0x18, 7, 3, 0), true},
		{"everything: other type", Filter{Everything: true}, frame(0x0800, 0x18, 7, 3, 0), false},
	} {
		vm, err := bpf.NewVM(tc.filter.instructions())
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		n, err := vm.Run(tc.frame)
		if err != nil || n > 0 != tc.pass {
			t.Errorf("%s: %d, %v, want pass %v", tc.name, n, err, tc.pass)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open("nosuchif0", Options{}); err == nil {
		t.Error("opened an interface that does not exist")
	} else if want := "interface nosuchif0: no such device"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}
