package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/nbd"
)

// serveNBD exports an image on a unix socket, and returns the URI and how to end it.
func serveNBD(t *testing.T, path string, readOnly bool) (uri string, stop func()) {
	t.Helper()
	d, err := file.Open(path, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := nbd.NewServer(nbd.Options{})
	if err := s.Add(nbd.Export{Name: "disk", Device: d, ReadOnly: readOnly}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(context.Background(), l)
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		_ = d.Close()
	}
	t.Cleanup(stop)
	return "nbd+unix:///disk?socket=" + sock, stop
}

// TestNBDBackend serves an NBD export. When its server ends, no request is answered
// with an error: the target is silent, and the process ends with 1.
func TestNBDBackend(t *testing.T) {
	bin, n, path := build(t), newNets(t, 9000), image(t, sectors)
	uri, stop := serveNBD(t, path, false)
	s := n.start(t, bin, "-s", "-o", "8", "2", "1", "srv", uri)
	if !strings.HasSuffix(s.line, ": e2.1, 4088 sectors O_RDWR") {
		t.Errorf("start-up line %q", s.line)
	}
	c := n.initiator(t, 2, 1)
	if _, err := find(c); err != nil {
		t.Fatal(err)
	}
	_, b, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 8, LBA: 100}, nil)
	if err != nil || !bytes.Equal(b[:4096], pattern(108, 8)) {
		t.Errorf("read: %v, or wrong data", err)
	}
	want := bytes.Repeat([]byte{0x5a}, 1024)
	if r, _, err := c.ATA(aoe.ATA{Command: aoe.ATAWrite, Count: 2, LBA: 0}, want); err != nil || r.Command != aoe.StatusReady {
		t.Errorf("write: %+v, %v", r, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[8*512:10*512], want) {
		t.Errorf("the write is not in the file (%v)", err)
	}
	if r, _, err := c.ATA(aoe.ATA{Command: aoe.ATAFlush}, nil); err != nil || r.Command != aoe.StatusReady {
		t.Errorf("flush: %+v, %v", r, err)
	}
	stop()
	if !unanswered(c, func() error { _, _, err := c.ATA(aoe.ATA{Command: aoe.ATARead, Count: 1, LBA: 0}, nil); return err }) {
		t.Error("an answer without a server")
	}
	select {
	case <-s.exited:
		if code := s.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(s.stderr.String(), "connection to the NBD server lost") {
			t.Errorf("exit code %d: %s", code, s.stderr)
		}
	case <-time.After(patience):
		t.Error("still running without its server")
	}
}

func TestNBDBackendReadOnly(t *testing.T) {
	unraced(t)
	bin, n := build(t), newNets(t, 1500)
	uri, _ := serveNBD(t, image(t, 64), true)
	s := n.start(t, bin, "-r", "2", "1", "srv", uri)
	if !strings.HasSuffix(s.line, "64 sectors O_RDONLY") {
		t.Errorf("start-up line %q", s.line)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("stop: %v %s", err, s.stderr)
	}
	for args, want := range map[string]string{uri: "read-only", "-d " + uri: "option -d", "nbd+unix:///x?socket=/nonexistent/s": "no such file"} {
		o, err := parse(append([]string{"2", "1", "lo"}, strings.Fields(args)...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.open(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}
