// Package pairs records which events a core was given in which states, over all the tests
// that run with a place to write it down. sim/pairs adds the records up and says what never
// happened.
//
// A state is the connection, the disk and the role of a volume. An event is a kind, and with
// some kinds more: the operation of a request, the command of a packet and of an operator,
// and whether a disk or metadata operation has failed.
package pairs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// Dir is the environment variable that names the folder for records. Without it nothing is
// recorded.
const Dir = "REPLBLK_PAIRS"

// Sizes of the space of pairs.
const (
	conns  = int(state.Behind) + 1
	disks  = int(state.UpToDate) + 1
	roles  = 2
	states = conns * disks * roles
)

// State is a state of a volume, as far as it is recorded.
type State int

// Conn returns the state of the connection. The five that say why one was lost count as one.
func (s State) Conn() state.Conn { return state.Conn(int(s) / (disks * roles)) }

// Disk returns the state of the disk.
func (s State) Disk() state.Disk { return state.Disk(int(s) / roles % disks) }

// Primary says whether the role is Primary.
func (s State) Primary() bool { return int(s)%roles == 1 }

// String returns the state as the log does.
func (s State) String() string {
	role := "Secondary"
	if s.Primary() {
		role = "Primary"
	}
	return fmt.Sprintf("%v %s %v", s.Conn(), role, s.Disk())
}

func stateOf(st state.State) State {
	if st.Conn.Lost() {
		st.Conn = state.NetworkFailure // the others differ in the log only
	}
	s := (int(st.Conn)*disks + int(st.Disk)) * roles
	if st.Role == state.Primary {
		s++
	}
	return State(s)
}

// Recorder collects pairs. The zero value is ready; it may be used by several goroutines.
type Recorder struct {
	seen [states * maxEvents]atomic.Bool
}

// Seen notes that an event came in a state. kind, op and admin are the numbers of package
// replication, which this package may not import because its tests use it.
func (r *Recorder) Seen(st state.State, kind, op uint8, cmd wire.Command, admin uint8, failed bool) {
	e := eventOf(kind, op, cmd, admin, failed)
	if e < 0 {
		return
	}
	if b := &r.seen[int(stateOf(st))*maxEvents+int(e)]; !b.Load() { // mostly set, and shared by all goroutines
		b.Store(true)
	}
}

// Write writes the record to a file of its own in the folder that Dir names. Without one it
// does nothing.
func (r *Recorder) Write(name string) error {
	dir := os.Getenv(Dir)
	if dir == "" {
		return nil
	}
	var b strings.Builder
	for i := range r.seen {
		if r.seen[i].Load() {
			fmt.Fprintln(&b, i)
		}
	}
	return os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.pairs", name, os.Getpid())), []byte(b.String()), 0o600)
}

// Main runs the tests of a package, m, and returns the exit code. If records are wanted, use
// is told of a Recorder first, and what it has seen is written afterwards.
func Main(m interface{ Run() int }, name string, use func(*Recorder)) int {
	if os.Getenv(Dir) == "" {
		return m.Run()
	}
	r := new(Recorder)
	use(r)
	code := m.Run()
	if err := r.Write(name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Set is the pairs of one or many records.
type Set map[State]map[Event]bool

// Read adds up the records in a folder.
func Read(dir string) (Set, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pairs"))
	if err != nil {
		return nil, err
	}
	s := Set{}
	for _, path := range files {
		if err := s.read(path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return s, nil
}

func (s Set) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		i, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		if i < 0 || i >= states*maxEvents {
			return fmt.Errorf("pair %d, there are %d", i, states*maxEvents)
		}
		st, e := State(i/maxEvents), Event(i%maxEvents)
		if s[st] == nil {
			s[st] = map[Event]bool{}
		}
		s[st][e] = true
	}
	return lines.Err()
}
