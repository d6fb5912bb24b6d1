package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tool runs a program that somebody else wrote.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed for this test (make deps): %v", name, err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestForeignClients lets programs that know nothing of us use the mirror: what they
// write through one node, they find on the other after a switch, and both disks are
// the same.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	a, b := synced(t, pairOptions{})
	a.must("primary", "r0")
	uri := "nbd+unix:///r0?socket=" + a.path(".nbd")
	if out := tool(t, "nbdinfo", uri); !strings.Contains(out, "export-size") {
		t.Errorf("nbdinfo:\n%s", out)
	}
	tool(t, "fio", "--name=v", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=4k-128k", "--iodepth=16",
		"--size=8M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=64", "--end_fsync=1", "--verify_state_save=0")
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0xa5 1M 64k", "-c", "write -z 2M 64k", "-c", "discard 3M 64k",
		"-c", "flush", "-c", "read -P 0xa5 1M 64k", "-c", "read -P 0 2M 64k", "-c", "read -P 0 3M 64k", uri)
	if out := tool(t, "nbdinfo", "--map", "--totals", uri); !strings.Contains(out, "hole,zero") {
		t.Errorf("a mirror on sparse files has no holes for its clients:\n%s", out)
	}
	saved := filepath.Join(t.TempDir(), "image")
	tool(t, "nbdcopy", uri, saved)
	a.must("secondary", "--force", "r0")
	b.must("primary", "r0")
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", saved, "nbd+unix:///r0?socket="+b.path(".nbd"))

	size := b.snapshot().Volumes[0].Size
	for _, h := range []*host{a, b} {
		if err := h.end(syscall.SIGTERM); err != nil {
			t.Errorf("%s: end: %v", h.name, err)
		}
	}
	equalDisks(t, a, b, size)
}
