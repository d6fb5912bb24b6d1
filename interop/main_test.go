//go:build interop

package interop

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Addresses in the namespace. Nothing routes to them from outside.
const (
	peerIP     = "10.99.0.254"
	kernelIP   = "10.99.0.1"
	peerIPv6   = "fd99::fe"
	kernelIPv6 = "fd99::1"
	tapName    = "tap0"
	aoeTap     = "tap1" // the machine's eth1, for what has no IP address
)

// insideEnv says that the process runs in the namespace, and names the folder that
// lab/setup.sh has prepared.
const insideEnv = "REPLBLK_INTEROP_LAB"

var (
	outDir   = flag.String("interop.out", "", "folder for consoles, disks and captures (default: a new one in the temporary folder, removed if all passed)")
	machines = flag.Int("interop.machines", 3, "how many machines run side by side, each with its part of the tests")
)

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
	tests, err := selected()
	if err != nil {
		return 0, err
	}
	parts, err := distribute(tests, max(*machines, 1))
	if err != nil {
		return 0, err
	}
	lab, err := prepare("setup.sh")
	if err == nil {
		_, err = prepare("diskless.sh")
	}
	if err != nil {
		return 0, err
	}
	dir, err := makeOutDir()
	if err != nil {
		return 0, err
	}
	good, err := runParts(lab, dir, parts, tests)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w; see %s", err, dir)
	case !good:
		fmt.Printf("interop: consoles, logs and disks are in %s\n", dir)
		return 1, nil
	case *outDir == "":
		return 0, os.RemoveAll(dir)
	}
	return 0, nil
}

// selected lists the tests that -run names, by asking this very program.
func selected() ([]string, error) {
	root, _, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	if root == "" {
		root = "."
	}
	list := exec.Command("/proc/self/exe", "-test.list="+root)
	list.Env = append(os.Environ(), insideEnv+"=list")
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list of tests: %w", err)
	}
	tests := strings.Fields(string(out))
	if len(tests) == 0 {
		return nil, fmt.Errorf("no test is called %s", root)
	}
	return tests, nil
}

// makeOutDir returns the folder for everything that the tests leave.
func makeOutDir() (string, error) {
	if *outDir == "" {
		return os.MkdirTemp("", "replblk-interop-")
	}
	return filepath.Abs(*outDir)
}

// runParts has a process with a machine of its own for each part of the tests.
func runParts(lab, dir string, parts [][]string, tests []string) (good bool, err error) {
	rep := newReport(os.Stdout)
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		own := dir
		if len(parts) > 1 {
			own = filepath.Join(dir, fmt.Sprint("machine", i+1))
		}
		wg.Go(func() { errs[i] = runPart(rep, lab, own, part, len(parts) == 1) })
	}
	wg.Wait()
	good = rep.summary(tests, len(parts))
	return good, errors.Join(errs...)
}

// runPart runs some tests in a process in a network namespace of its own. verbose passes
// on what it prints if that is asked for.
func runPart(rep *report, lab, dir string, tests []string, verbose bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "test.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	var raw io.Writer = log
	if verbose && testing.Verbose() {
		raw = io.MultiWriter(log, os.Stdout)
	}
	names := "^(" + strings.Join(tests, "|") + ")$"
	if _, sub, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		names += "/" + sub
	}
	self := exec.Command("/proc/self/exe", append(os.Args[1:], "-test.run="+names, "-test.v=test2json", "-interop.out="+dir)...)
	self.Env = append(os.Environ(), insideEnv+"="+lab)
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := self.StdoutPipe()
	if err != nil {
		return err
	}
	self.Stderr = self.Stdout // both in the order in which they were written
	if err := self.Start(); err != nil {
		return err
	}
	followed := rep.follow(out, raw)
	err = self.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil // the report says why, if there is a reason
		rep.mu.Lock()
		rep.died = true
		rep.mu.Unlock()
	}
	return errors.Join(followed, err)
}

// prepare runs a script that makes what the machines boot, while there is a network to
// install packages from, and returns what it printed.
func prepare(script string) (string, error) {
	c := exec.Command(filepath.Join("lab", script))
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("lab/%s: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// inside runs the tests in the namespace.
func inside(m *testing.M, lab string) (int, error) {
	if flag.Lookup("test.list").Value.String() != "" {
		return m.Run(), nil
	}
	if err := network(); err != nil {
		return 0, err
	}
	vm, err := boot(lab, *outDir)
	if err != nil {
		return 0, err
	}
	machine = vm
	fmt.Println(versionMark + vm.said)
	code := m.Run()
	vm.halt()
	return code, nil
}

// network makes the tap device that the machine is plugged into. drbdadm is to find itself on
// the host that the configuration names.
func network() error {
	if err := syscall.Sethostname([]byte("kernel")); err != nil {
		return err
	}
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
