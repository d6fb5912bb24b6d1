//go:build interop

package interop

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Addresses in the namespace. Nothing routes to them from outside.
const (
	peerIP   = "10.99.0.254"
	kernelIP = "10.99.0.1"
	tapName  = "tap0"
	aoeTap   = "tap1" // the machine's eth1, for what has no IP address
)

// insideEnv says that the process runs in the namespace, and names the folder that
// lab/setup.sh has prepared.
const insideEnv = "REPLBLK_INTEROP_LAB"

var outDir = flag.String("interop.out", "", "folder for consoles, disks and captures (default: a new one in the temporary folder, removed if all passed)")

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if lab := os.Getenv(insideEnv); lab != "" {
		return inside(m, lab)
	}
	if os.Getuid() != 0 {
		return 0, errors.New("these tests need root: they make a network namespace and boot a machine on a tap device")
	}
	setup := exec.Command(filepath.Join("lab", "setup.sh"))
	setup.Stderr = os.Stderr
	lab, err := setup.Output()
	if err != nil {
		return 0, fmt.Errorf("lab/setup.sh: %w", err)
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.Env = append(os.Environ(), insideEnv+"="+strings.TrimSpace(string(lab)))
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = self.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// inside runs the tests in the namespace.
func inside(m *testing.M, lab string) (int, error) {
	dir := *outDir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "replblk-interop-"); err != nil {
			return 0, err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	if err := network(); err != nil {
		return 0, err
	}
	vm, err := boot(lab, dir)
	if err != nil {
		return 0, fmt.Errorf("%w; see %s", err, dir)
	}
	machine = vm
	code := m.Run()
	vm.halt()
	if code != 0 || *outDir != "" {
		fmt.Fprintf(os.Stderr, "interop: consoles, logs and disks are in %s\n", dir)
		return code, nil
	}
	return code, os.RemoveAll(dir)
}

// network makes the tap device that the machine is plugged into.
func network() error {
	for _, args := range []string{
		"link set lo up",
		"tuntap add " + tapName + " mode tap",
		"addr add " + peerIP + "/24 dev " + tapName,
		"link set " + tapName + " up",
		"tuntap add " + aoeTap + " mode tap",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}
