package chaos

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Injection is one fault at one system call of a daemon, done by strace. The zero value
// of What it does kills the daemon before the call is executed.
type Injection struct {
	Calls string // names, separated by commas: "pwrite64,fdatasync"
	// Nth is the number of the first call that is hit, from 1. Each thread of the
	// daemon counts for itself.
	Nth int
	// From: every call from the Nth on is hit. Otherwise that one alone, or with Step each
	// that comes so many calls after one that was hit.
	From bool
	Step int

	Errno string        // the call fails with it, without being executed: "EIO"
	Delay time.Duration // the call begins so much later
}

// String is the injection as strace is told it.
func (in *Injection) String() string {
	s := fmt.Sprintf("inject=%s:", in.Calls)
	switch {
	case in.Errno != "":
		s += "error=" + in.Errno
	case in.Delay > 0:
		s += fmt.Sprintf("delay_enter=%d", in.Delay.Microseconds())
	default:
		s += "signal=SIGKILL"
	}
	s += fmt.Sprintf(":when=%d", in.Nth)
	switch {
	case in.From:
		s += "+"
	case in.Step > 0:
		s += fmt.Sprintf("+%d", in.Step)
	}
	return s
}

// Kills says whether the injection ends the daemon.
func (in *Injection) Kills() bool { return in.Errno == "" && in.Delay == 0 }

// command is what to put before the daemon's. With -D the daemon is our child and
// strace is not; --seccomp-bpf would be faster, but kills after the call (strace 6.1).
func (in *Injection) command(file string) []string {
	return []string{"strace", "-D", "-f", "-qq", "-s", "0", "-o", file, "-e", "signal=none", "-e", "trace=" + in.Calls, "-e", in.String()}
}

// Injected counts what strace has done to the daemon that was started last, kills
// excepted: those show in how it ended.
func (h *Host) Injected() int {
	text, err := os.ReadFile(h.Path(".strace"))
	if err != nil {
		return 0 // strace has not begun
	}
	return strings.Count(string(text), "(INJECTED)") + strings.Count(string(text), "(DELAYED)")
}
