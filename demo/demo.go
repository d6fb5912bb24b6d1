package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/replblk/replblk/internal/nbdclient"
)

type options struct {
	binary  string
	dir     string
	keep    bool
	sizeMiB int
}

const (
	writers     = 4
	regionMiB   = 6 // where each writer writes
	imageMiB    = writers * regionMiB
	writeTime   = 3 * time.Second
	aloneWrites = 500
)

// demo is one run.
type demo struct {
	options
	temp         bool // dir was made by us
	alpha, bravo *daemon
	ledger       *nbdclient.Ledger
}

func (d *demo) run(ctx context.Context) error {
	if d.sizeMiB < 128 {
		return fmt.Errorf("a disk of %d MiB is too small for the demo", d.sizeMiB)
	}
	for _, step := range []func(context.Context) error{
		d.prepare, d.start, d.useIt, d.writeAndKill, d.failover, d.writeAlone, d.comeBack, d.failback, d.compare,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes two disks and the configuration.
func (d *demo) prepare(ctx context.Context) error {
	d.ledger = nbdclient.NewLedger()
	if d.dir == "" {
		dir, err := os.MkdirTemp("", "replblk-demo-")
		if err != nil {
			return err
		}
		d.dir, d.temp = dir, true
	}
	say("Two nodes on this machine, alpha and bravo, each with a disk: a file of %d MiB in %s.", d.sizeMiB, d.dir)
	if d.binary == "" {
		d.binary = filepath.Join(d.dir, "replblk")
		detail("building replblk")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", d.binary, "github.com/replblk/replblk/cmd/replblk").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	d.alpha, d.bravo = newDaemon(d, "alpha", ports[0]), newDaemon(d, "bravo", ports[1])
	if err := d.writeConfig(); err != nil {
		return err
	}
	for _, n := range []*daemon{d.alpha, d.bravo} {
		f, err := os.Create(n.disk())
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(int64(d.sizeMiB)<<20), f.Close()); err != nil {
			return err
		}
		if _, err := n.do(ctx, "create-md", "--force", "r0"); err != nil {
			return err
		}
	}
	return nil
}

// start runs both daemons.
func (d *demo) start(ctx context.Context) error {
	say("Both daemons start, find each other, and declare their empty disks equal: nothing to copy.")
	for _, n := range []*daemon{d.alpha, d.bravo} {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if _, err := d.alpha.do(ctx, "wait-connect", "--timeout", "15s", "r0"); err != nil {
		return err
	}
	if _, err := d.alpha.do(ctx, "new-current-uuid", "--clear-bitmap", "r0"); err != nil {
		return err
	}
	if _, err := d.alpha.do(ctx, "primary", "r0"); err != nil {
		return err
	}
	return d.alpha.status(ctx, "role:Primary", "disk:UpToDate", "peer-disk:UpToDate")
}

// useIt writes and verifies with nbdcopy, if there is one: the export is what any NBD
// client takes it for.
func (d *demo) useIt(ctx context.Context) error {
	if _, err := exec.LookPath("nbdcopy"); err != nil {
		say("(nbdcopy is not installed: the demo's own NBD client does all the writing.)")
		return nil //nolint:nilerr // it is an extra
	}
	say("nbdcopy, a client we did not write, copies an image of %d MiB to alpha's export and back.", imageMiB)
	src, back := filepath.Join(d.dir, "image"), filepath.Join(d.dir, "image.back")
	image := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), imageMiB<<20/45+1)[:imageMiB<<20]
	if err := os.WriteFile(src, image, 0o600); err != nil {
		return err
	}
	if err := run(ctx, "nbdcopy", "--flush", src, d.alpha.uri()); err != nil {
		return err
	}
	if err := run(ctx, "nbdcopy", d.alpha.uri(), back); err != nil {
		return err
	}
	got, err := os.ReadFile(back)
	if err != nil {
		return err
	}
	if len(got) < len(image) || !bytes.Equal(got[:len(image)], image) {
		return errors.New("what nbdcopy read is not what it wrote")
	}
	good("what it reads is what it wrote")
	return errors.Join(os.Remove(src), os.Remove(back))
}

// writeAndKill writes from several clients at once and kills alpha meanwhile.
func (d *demo) writeAndKill(ctx context.Context) error {
	say("%d clients write to alpha, 4 KiB here and there, and note every acknowledgement.", writers)
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		c, err := nbdclient.Dial(ctx, "unix:"+d.alpha.nbd(), "r0")
		if err != nil {
			return err
		}
		defer c.Abort()
		wg.Go(func() {
			const n = regionMiB << 20 / nbdclient.BlockSize
			errs[i] = d.ledger.Fill(ctx, c, uint64(i*n), n, 0)
		})
	}
	for end := time.Now().Add(writeTime); time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(writeTime / 3)
		writes, _ := d.ledger.Acknowledged()
		detail("%d writes acknowledged", writes)
	}
	say("alpha is killed with SIGKILL, in the middle of writing.")
	before, _ := d.ledger.Acknowledged()
	if err := d.alpha.kill(); err != nil {
		return err
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			return errors.New("a client did not notice that its server was killed")
		}
	}
	writes, blocks := d.ledger.Acknowledged()
	if before == 0 {
		return errors.New("no write was acknowledged before the kill")
	}
	detail("%d writes to %d blocks had been acknowledged; all clients lost their connection", writes, blocks)
	return nil
}

// failover makes bravo serve, and checks that it has everything.
func (d *demo) failover(ctx context.Context) error {
	say("bravo is made Primary and must have every one of them.")
	if err := d.bravo.retry(ctx, 15*time.Second, "primary", "r0"); err != nil {
		return err
	}
	if err := d.bravo.status(ctx, "role:Primary", "disk:UpToDate", "alpha connection:Connecting"); err != nil {
		return err
	}
	return d.checkOn(ctx, d.bravo)
}

// checkOn reads everything back that was acknowledged.
func (d *demo) checkOn(ctx context.Context, n *daemon) error {
	c, err := nbdclient.Dial(ctx, "unix:"+n.nbd(), "r0")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := d.ledger.Check(c); err != nil {
		return fmt.Errorf("%s has lost a write: %w", n.name, err)
	}
	_, blocks := d.ledger.Acknowledged()
	good("%s has every acknowledged write: %d blocks read and compared", n.name, blocks)
	return nil
}

// writeAlone makes bravo's data newer.
func (d *demo) writeAlone(ctx context.Context) error {
	say("bravo goes on alone: %d more writes. It notes which blocks alpha misses.", aloneWrites)
	c, err := nbdclient.Dial(ctx, "unix:"+d.bravo.nbd(), "r0")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := d.ledger.Fill(ctx, c, 0, writers*regionMiB<<20/nbdclient.BlockSize, aloneWrites); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	v, err := d.bravo.peer(ctx)
	if err != nil {
		return err
	}
	if v.OutOfSync == 0 {
		return errors.New("bravo does not know that it differs from alpha")
	}
	detail("%d KiB out of sync", v.OutOfSync)
	return nil
}

// comeBack starts alpha again and waits for the resync.
func (d *demo) comeBack(ctx context.Context) error {
	say("alpha comes back. Only where it was writing when it died (its activity log knows) and what\nbravo has written since is copied.")
	if err := d.alpha.start(ctx); err != nil {
		return err
	}
	if err := d.alpha.progress(ctx, "wait-sync", "--timeout", "60s", "r0"); err != nil {
		return err
	}
	v, err := d.alpha.peer(ctx)
	if err != nil {
		return err
	}
	whole := uint64(d.sizeMiB) << 10
	if v.Received == 0 || v.Received > whole/2 {
		return fmt.Errorf("the resync received %d KiB of a disk of %d KiB: that is not only what has changed", v.Received, whole)
	}
	good("alpha is up to date again: %.1f MiB received for a disk of %d MiB", float64(v.Received)/1024, d.sizeMiB)
	return nil
}

// failback gives the role back, and checks alpha's copy through alpha.
func (d *demo) failback(ctx context.Context) error {
	say("bravo gives the role back to alpha, and alpha must have everything too.")
	if _, err := d.bravo.do(ctx, "secondary", "r0"); err != nil {
		return err
	}
	if _, err := d.alpha.do(ctx, "primary", "r0"); err != nil {
		return err
	}
	return d.checkOn(ctx, d.alpha)
}

// compare stops both daemons and compares the disks.
func (d *demo) compare(ctx context.Context) error {
	v, err := d.alpha.device(ctx)
	if err != nil {
		return err
	}
	say("Both daemons are stopped, and their disks compared byte by byte.")
	for _, n := range []*daemon{d.alpha, d.bravo} {
		if err := n.stop(); err != nil {
			return err
		}
	}
	if err := equalFiles(d.alpha.disk(), d.bravo.disk(), v.Size<<10); err != nil {
		return err
	}
	good("%d KiB, not one byte differs", v.Size)
	return nil
}

func equalFiles(a, b string, n int64) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer func() { _ = fa.Close() }()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer func() { _ = fb.Close() }()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(x)) {
		k := min(int64(len(x)), n-off)
		if _, err := io.ReadFull(fa, x[:k]); err != nil {
			return err
		}
		if _, err := io.ReadFull(fb, y[:k]); err != nil {
			return err
		}
		for i := range x[:k] {
			if x[i] != y[i] {
				return fmt.Errorf("the disks differ at byte %d", off+int64(i))
			}
		}
	}
	return nil
}

// close ends what is left and removes what was made, unless there is something to look
// at.
func (d *demo) close(failed bool) error {
	for _, n := range []*daemon{d.alpha, d.bravo} {
		if n != nil {
			_ = n.kill()
		}
	}
	if !d.temp {
		return nil
	}
	if failed || d.keep {
		fmt.Printf("\nDisks and logs are in %s.\n", d.dir)
		return nil
	}
	return os.RemoveAll(d.dir)
}

func run(ctx context.Context, name string, args ...string) error {
	fmt.Printf("    $ %s %s\n", name, strings.Join(args, " "))
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
