package replication

import (
	"testing"

	"github.com/replblk/replblk/replication/state"
)

// timeoutConfig has a disk-timeout of one second.
func timeoutConfig() Config {
	c := testConfig()
	c.Volumes[0].DiskTimeoutTenths = 10
	return c
}

func (n *testNode) noted(note Note) (times int) {
	for i := range n.notes {
		if n.notes[i].Note == note {
			times++
		}
	}
	return times
}

func (n *testNode) answered(t *testing.T, id ReqID, want Outcome) {
	t.Helper()
	if o, ok := n.outcome[id]; !ok || o != want {
		t.Fatalf("%s: request %d: answered %v with %v, want %v\n%s", n.name, id, ok, o, want, n.p.take())
	}
}

// revive gives the disk back: what it missed must come by a resync.
func (n *testNode) revive(t *testing.T) {
	t.Helper()
	n.hung, n.stuck = false, false
	n.attach()
	n.p.tick(100)
}

// TestDiskTimeoutOfPrimary: the disk of the Primary answers nothing any more. What waits for
// it, of every kind, is served by the peer, and when the disk is back it gets what it missed.
func TestDiskTimeoutOfPrimary(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, b := establish(t, p)
	b.data[4096] = 3 // of what the disk at a has under a read, nobody knows
	a.hung = true
	write := a.request(OpWrite, 8, 4096, 7)
	read := a.request(OpRead, 4096, 4096, 0)
	discard := a.request(OpDiscard, 16, 4096, 0)
	flush := a.request(OpFlush, 0, 0, 0)
	p.tick(11)
	if len(a.outcome) != 0 || a.r.State(0).Disk != state.UpToDate {
		t.Fatalf("after eleven ticks: %d answers, disk %v", len(a.outcome), a.r.State(0).Disk)
	}
	p.tick(1)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	for _, id := range []ReqID{write, read, discard, flush} {
		a.answered(t, id, OK)
	}
	if got := a.reqs[read][0]; got != 3 {
		t.Errorf("the read has %d, the peer's disk 3", got)
	}
	if a.noted(NoteDiskTimeout) != 1 || a.noted(NoteDiskError)+a.noted(NoteMetaError) != 0 {
		t.Errorf("%d notes of the timeout, %d of an error, %d of an error of the metadata; want only one of the timeout",
			a.noted(NoteDiskTimeout), a.noted(NoteDiskError), a.noted(NoteMetaError))
	}
	later := a.request(OpWrite, 64, 4096, 9)
	p.settle()
	a.answered(t, later, OK)
	b.data[4096] = 0
	a.revive(t)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.data[8] != 7 || a.data[64] != 9 {
		t.Errorf("sectors 8 and 64 are %d and %d, want 7 and 9", a.data[8], a.data[64])
	}
}

// TestDiskTimeoutOfSecondary: the Primary's write must not wait for the peer's disk, and what
// the peer has confirmed before and may have lost is copied again.
func TestDiskTimeoutOfSecondary(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, b := establish(t, p)
	first := a.request(OpWrite, 8, 4096, 7)
	p.settle()
	a.answered(t, first, OK)
	b.hung = true
	second := a.request(OpWrite, 64, 4096, 9)
	p.settle()
	if _, ok := a.outcome[second]; ok {
		t.Fatal("answered although the peer's disk has not")
	}
	p.tick(12)
	a.answered(t, second, OK)
	if b.r.State(0).Disk != state.Diskless {
		t.Fatalf("b is %v\n%s", b.r.State(0), p.take())
	}
	clear(b.data[8:16]) // the cache of the disk that hung
	b.revive(t)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
}

// TestDiskTimeoutOfMetadata: a superblock, a log transaction or a bitmap page that never
// becomes durable holds everything that waits for it.
func TestDiskTimeoutOfMetadata(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, _ := establish(t, p)
	a.stuck = true
	id := a.request(OpWrite, 8, 4096, 7) // its extent is not in the log yet
	p.tick(10)
	if _, ok := a.outcome[id]; ok {
		t.Fatal("written before the log was")
	}
	p.tick(2)
	a.answered(t, id, OK)
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
}

// TestDiskTimeoutAlone: without a peer there is nobody to serve what waits, and the
// application must be told.
func TestDiskTimeoutAlone(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, _ := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	a.hung = true
	id := a.request(OpWrite, 8, 4096, 7)
	p.tick(13)
	a.answered(t, id, IOError)
	if s := a.r.State(0); s.Disk != state.Diskless {
		t.Errorf("disk is %v", s.Disk)
	}
}

// TestDiskTimeoutCountsTicks: a process that was stopped finds old operations, and the
// answers to them right behind the tick.
func TestDiskTimeoutCountsTicks(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, _ := establish(t, p)
	a.hung = true
	id := a.request(OpWrite, 8, 4096, 7)
	p.settle()
	p.now += 3600 * Second
	p.tick(2)
	a.unhang()
	p.tick(20)
	a.answered(t, id, OK)
	if s := a.r.State(0); s.Disk != state.UpToDate {
		t.Errorf("disk is %v after a pause", s.Disk)
	}
}

// TestDiskTimeoutCallsHandler: call-local-io-error is about a disk that fails by saying
// nothing, too.
func TestDiskTimeoutCallsHandler(t *testing.T) {
	c := timeoutConfig()
	c.Volumes[0].OnIOError = OnErrorCallHandler
	p := newPair(c, timeoutConfig())
	a, _ := establish(t, p)
	a.hung = true
	a.request(OpWrite, 8, 4096, 7)
	p.tick(13)
	if !a.ran(HandlerLocalIOError) {
		t.Error("local-io-error did not run")
	}
}

// TestNoDiskTimeout: it is off by default, and reads need not ask the core.
func TestNoDiskTimeout(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	a.hung = true
	id := a.request(OpWrite, 8, 4096, 7)
	p.tick(700)
	if _, ok := a.outcome[id]; ok || a.r.State(0).Disk != state.UpToDate {
		t.Errorf("disk is %v, answered: %v", a.r.State(0).Disk, ok)
	}
	if !a.r.vols[0].readsLocal {
		t.Error("reads are not allowed past the core")
	}
	p = newPair(timeoutConfig(), timeoutConfig())
	if a, _ = establish(t, p); a.r.vols[0].readsLocal {
		t.Error("reads pass the core, which has to keep the time")
	}
}

// TestForcedDetachOfHungDisk: it waits for a second at most, whatever the disk does, also
// when a detach without force is waiting already.
func TestForcedDetachOfHungDisk(t *testing.T) {
	for _, asked := range []bool{false, true} {
		p := newPair()
		a, _ := establish(t, p)
		a.hung = true
		id := a.request(OpWrite, 8, 4096, 7)
		p.settle()
		var polite uint64
		if asked {
			polite = a.admin(Admin{Kind: AdminDetach})
			p.tick(20)
			if _, ok := a.replies[polite]; ok {
				t.Fatalf("detach did not wait for the disk\n%s", p.take())
			}
		}
		token := a.admin(Admin{Kind: AdminDetach, Force: true})
		p.tick(9)
		if _, ok := a.replies[token]; ok {
			t.Fatalf("detach --force did not give the disk its second\n%s", p.take())
		}
		p.tick(2)
		a.answered(t, id, OK)
		if res, ok := a.replies[token]; !ok || res != state.Success {
			t.Errorf("detach --force: %v, %v", ok, res)
		}
		if res, ok := a.replies[polite]; asked && (!ok || res != state.Success) {
			t.Errorf("detach: %v, %v", ok, res)
		}
		p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
		a.revive(t)
		p.equal(t)
	}
}

// TestForcedDetachKeepsTheBitmap: a disk that is well gets what it needs to come back with
// nothing but what it missed.
func TestForcedDetachKeepsTheBitmap(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	p.apart = true
	p.cut()
	p.tick(2)
	a.request(OpWrite, 8, 4096, 7)
	p.settle()
	a.admin(Admin{Kind: AdminDetach, Force: true})
	p.settle()
	if s := a.r.State(0); s.Disk != state.Diskless || a.aborted {
		t.Fatalf("disk is %v", s.Disk)
	}
	if page := a.pages[a.layout.Bitmap]; page == nil || page[0] != 1<<1 {
		t.Error("the bit of the write is not on disk")
	}
}

// TestDiskTimeoutDuringResize: a device that is being measured, or whose metadata moves, does
// not answer; the resize ends with the disk.
func TestDiskTimeoutDuringResize(t *testing.T) {
	p := newPair(timeoutConfig(), timeoutConfig())
	a, _ := establish(t, p)
	a.grow(8192)
	token := a.admin(Admin{Kind: AdminResize})
	for len(a.inbox) > 0 && a.inbox[0].Kind != EvDevice {
		a.next()
	}
	late := a.inbox
	a.inbox = nil
	a.admin(Admin{Kind: AdminDetach, Force: true})
	a.hung = true
	p.tick(12)
	if res := a.replies[token]; res != state.NoLocalDisk {
		t.Errorf("resize: %v, want %v", res, state.NoLocalDisk)
	}
	if s := a.r.State(0); s.Disk != state.Diskless {
		t.Fatalf("disk is %v\n%s", s.Disk, p.take())
	}
	a.inbox = append(a.inbox, late...)
	p.tick(1)
	if a.r.resizes() {
		t.Error("the late answer began a resize")
	}
}

// TestDetachBesideAWrite: a detach in good order lets the writes end that are on the disk, and
// those that wait for it are done by the peer; the disk comes back with what it missed only.
func TestDetachBesideAWrite(t *testing.T) {
	p := newPair()
	a, _ := establish(t, p)
	warm := a.request(OpWrite, 8, 4096, 1)
	p.settle()
	a.answered(t, warm, OK)
	a.hung = true // not for ever
	begun := a.request(OpWrite, 8, 4096, 7)
	overlapping := a.request(OpWrite, 12, 4096, 8)
	token := a.admin(Admin{Kind: AdminDetach})
	p.settle()
	after := a.request(OpWrite, 64, 4096, 9)
	p.settle()
	if _, ok := a.replies[token]; ok {
		t.Fatalf("detached under a write\n%s", p.take())
	}
	a.answered(t, after, OK)
	if _, ok := a.outcome[begun]; ok {
		t.Error("a write was answered that the disk had, and has not answered")
	}
	clear(a.data[8:16]) // the harness does not carry out what hangs
	a.unhang()
	copy(a.data[8:16], []uint64{7, 7, 7, 7, 7, 7, 7, 7})
	p.settle()
	for _, id := range []ReqID{begun, overlapping} {
		a.answered(t, id, OK)
	}
	if res := a.replies[token]; res != state.Success {
		t.Errorf("detach: %v", res)
	}
	p.states(t, "Connected Primary/Secondary Diskless/UpToDate", "Connected Secondary/Primary UpToDate/Diskless")
	a.revive(t)
	p.states(t, "Connected Primary/Secondary UpToDate/UpToDate", "Connected Secondary/Primary UpToDate/UpToDate")
	p.equal(t)
	if a.data[8] != 7 || a.data[12] != 8 || a.data[64] != 9 {
		t.Errorf("sectors 8, 12 and 64 are %d, %d and %d", a.data[8], a.data[12], a.data[64])
	}
}
