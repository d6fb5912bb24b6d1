package main

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

// another plugs a second interface of the client's into the bridge.
func (n lan) another(t *testing.T, name string) {
	t.Helper()
	port := n.client + "2"
	ip(t, fmt.Sprintf("-n %s link add %s type veth peer name %s netns %s", n.client, name, port, n.bridge))
	ip(t, "-n "+n.bridge+" link set "+port+" master bridge0 up")
	ip(t, "-n "+n.client+" link set "+name+" up")
}

// member is a client's host with the commands that it gives the target.
type member struct {
	*station
	*aoetest.Client
	mac aoe.MAC
}

func newMember(s *station) *member {
	c := aoetest.NewClient(s.link, 1, 1)
	c.Target = s.target
	return &member{s, c, s.link.HardwareAddr()}
}

// patiently repeats what gets no answer, as initiators do.
func (m *member) patiently(f func() error) error {
	m.Timeout = 100 * time.Millisecond
	for end := time.Now().Add(patient); ; {
		if err := f(); !errors.Is(err, aoetest.ErrSilent) || time.Now().After(end) {
			return err
		}
	}
}

func (m *member) reserve(macs ...aoe.MAC) error {
	return m.patiently(func() error { _, err := m.Reserve(aoe.ReserveSet, macs...); return err })
}

func (m *member) write(lba uint64) error {
	return m.patiently(func() error {
		_, _, err := m.ATA(aoe.ATA{Flags: aoe.ATAFlagWrite | aoe.ATAFlagExt, Count: 1, Command: aoe.ATAWriteExt, LBA: lba}, bytes.Repeat([]byte{0xee}, 512))
		return err
	})
}

// TestAoEMigration: two hosts take turns at a guest's disk, as in a live migration. Who is
// not on the reserve list is refused, as a writer and as one who would put itself on it,
// in the middle of the other one's load and after the active node was killed. The guest,
// whose memory are the ledger's books, finds all that it has written.
func TestAoEMigration(t *testing.T) {
	unraced(t)
	n := newLAN(t, 1500)
	n.another(t, "cli2")
	a, b := n.pair(t, "", "permit reserve; state-file \""+t.TempDir()+"/NODE.json\";")
	first := newMember(n.station(t, 2))
	second := newMember(n.stationOn(t, "cli2", 2))
	second.ledger = first.ledger // the memory that migrates
	const beyond = 60000         // a sector that the ledger has not
	if first.mac == second.mac {
		t.Fatal("two hosts with one address")
	}
	refused := func(m *member, when string) {
		t.Helper()
		for name, err := range map[string]error{"write": m.write(beyond), "reserve": m.reserve(m.mac)} {
			if !errors.Is(err, aoetest.AoEError(aoe.ErrReserved)) {
				t.Errorf("%s: %s from outside the list: %v", when, name, err)
			}
		}
	}
	turn := func(m *member, event func()) {
		t.Helper()
		m.load(aoetest.NewLinux(int(m.config.Buffers)), 8, 400*time.Millisecond, event)
	}
	hand := func(from *member, list ...aoe.MAC) {
		t.Helper()
		if err := from.reserve(list...); err != nil {
			t.Fatal(err)
		}
	}

	hand(first, first.mac)
	turn(first, func() { refused(second, "at the first host") })
	hand(first, first.mac, second.mac) // both while the guest moves
	hand(second, second.mac)
	turn(second, func() { refused(first, "at the second host") })
	turn(second, func() {
		a.end(syscall.SIGKILL)
		b.takeover()
	})
	refused(first, "after the failover")
	hand(second, first.mac)
	turn(first, func() { refused(second, "back at the first host") })
	first.verify()
	var data []byte
	err := first.patiently(func() (err error) {
		_, data, err = first.ATA(aoe.ATA{Flags: aoe.ATAFlagExt, Count: 1, Command: aoe.ATAReadExt, LBA: beyond}, nil)
		return err
	})
	if err != nil || !bytes.Equal(data[:512], make([]byte, 512)) {
		t.Errorf("a write from outside the list has changed data: %v", err)
	}
	hand(first)
	if err := second.write(beyond); err != nil {
		t.Errorf("a write when nobody has reserved: %v", err)
	}
}
