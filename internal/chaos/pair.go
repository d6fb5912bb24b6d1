package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/loopback"
)

// How long things may take that come about by themselves, far above what they take.
const (
	switchTimeout = 2 * time.Minute // the news of a demotion
	beginTimeout  = 2 * time.Minute // two fresh nodes that connect
)

// Options of a Pair.
type Options struct {
	Binary  string // replblk
	Dir     string // is made if it is not there; disks, sockets and logs lie in it
	SizeMiB int    // of the disks
	Net     string // more of the net section
	Disk    string // more of the disk section
	Links   bool   // the daemons talk through Proxies
	Fence   bool   // fencing resource-and-stonith, with a witness: see Pair.Pardon
	// Address are those of the nodes, "10.0.0.1:7789"; empty: free ports of the loopback
	// interface.
	Address [2]string
}

// Pair is two nodes that mirror one volume, on this machine.
type Pair struct {
	Hosts [2]*Host
	// Proxies carry what Hosts[i] dials, if Options.Links is set.
	Proxies [2]*Proxy
	Size    uint64 // of the volume in bytes, once it is attached
	// Address is where each node listens for its peer.
	Address [2]string
}

// NewPair writes configurations and metadata for two nodes whose daemons do not run.
func NewPair(ctx context.Context, o Options) (*Pair, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	p := &Pair{}
	var addr, dial [2]string
	for i, name := range []string{"a", "b"} {
		p.Hosts[i] = &Host{Name: name, dir: o.Dir, binary: o.Binary}
		if addr[i] = o.Address[i]; addr[i] == "" {
			addr[i] = loopback.Address()
		}
		dial[i] = addr[i]
	}
	p.Address = addr
	for i := range p.Hosts {
		if !o.Links {
			break
		}
		proxy, err := NewProxy(addr[1-i])
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.Proxies[i], dial[1-i] = proxy, proxy.Address()
	}
	for i, h := range p.Hosts {
		peer := p.Hosts[1-i]
		disk := o.Disk
		if o.Fence {
			disk += " fencing resource-and-stonith;"
		}
		res := fmt.Sprintf("resource %s {\n device /dev/drbd7;\n meta-disk internal;\n net { connect-int 1; %s }\n disk { %s }\n"+
			" handlers { fence-peer %q; }\n"+
			" on %s { address %s; disk %q; }\n on %s { address %s; disk %q; }\n}\n",
			Resource, o.Net, disk, h.Path(".fence"), h.Name, addr[i], h.Path(".img"), peer.Name, dial[1-i], peer.Path(".img"))
		conf := fmt.Sprintf("control { socket %q; }\nnbd %s { listen \"unix:%s\"; resource %s; }\n", h.Path(".ctl"), Resource, h.Path(".nbd"), Resource)
		err := errors.Join(
			os.WriteFile(h.Path(".res"), []byte(res), 0o600),
			os.WriteFile(h.Path(".conf"), []byte(conf), 0o600),
			os.WriteFile(h.Path(".fence"), []byte(fmt.Sprintf(fenceScript, p.claim(), h.Name)), 0o700), //nolint:gosec // it is to be run
			os.WriteFile(h.Path(".img"), nil, 0o600),
			os.Truncate(h.Path(".img"), int64(o.SizeMiB)<<20))
		if err == nil {
			_, err = h.Tool(ctx, "create-md", "--force", Resource)
		}
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// fenceScript is the witness: the first node that asks may go on, and is told that its
// peer was shot (7). The other one is not answered well (1) and must wait.
const fenceScript = `#!/bin/sh
mkdir %[1]q 2>/dev/null && echo %[2]s > %[1]q/by
[ "$(cat %[1]q/by)" = %[2]s ] && exit 7
exit 1
`

// claim is the folder that the witness makes.
func (p *Pair) claim() string { return filepath.Join(p.Hosts[0].dir, "claim") }

// Chosen returns the name of the node that the witness has let go on, "" for none.
func (p *Pair) Chosen() string {
	by, err := os.ReadFile(filepath.Join(p.claim(), "by"))
	if err != nil {
		return "" // nobody has asked
	}
	return strings.TrimSpace(string(by))
}

// Pardon makes the witness forget who was fenced. The nodes must be in sync.
func (p *Pair) Pardon() error { return os.RemoveAll(p.claim()) }

// Begin starts both daemons and declares the empty disks equal.
func (p *Pair) Begin(ctx context.Context) error {
	for _, h := range p.Hosts {
		if err := h.Start(nil); err != nil {
			return err
		}
	}
	return p.Declare(ctx)
}

// Declare waits for the connection and declares the empty disks equal.
func (p *Pair) Declare(ctx context.Context) error {
	for _, h := range p.Hosts {
		if _, err := h.WaitFor(ctx, beginTimeout, "connection", func(r *control.Resource) bool { return r.Connection == "Connected" }); err != nil {
			return err
		}
	}
	if err := p.Hosts[0].Do(ctx, control.Request{Command: "new-current-uuid", ClearBitmap: true}); err != nil {
		return err
	}
	return p.WaitInSync(ctx, beginTimeout)
}

// WaitInSync waits until both nodes say that their disks are equal.
func (p *Pair) WaitInSync(ctx context.Context, d time.Duration) error {
	for _, h := range p.Hosts {
		r, err := h.WaitFor(ctx, d, "sync", InSync)
		if err != nil {
			return err
		}
		p.Size = r.Volumes[0].Size
	}
	return nil
}

// SwitchTo makes host i the Primary, and the other one Secondary before that if it runs. A
// promotion waits until the news of the demotion have arrived.
func (p *Pair) SwitchTo(ctx context.Context, i int) error {
	if err := p.Hosts[1-i].Secondary(ctx); err != nil {
		return err
	}
	free := func(r *control.Resource) bool { return r.PeerRole != "Primary" }
	if _, err := p.Hosts[i].WaitFor(ctx, switchTimeout, "demotion of the peer", free); err != nil {
		return err
	}
	return p.Hosts[i].Primary(ctx)
}

// Close kills what runs and takes the proxies away. The files stay.
func (p *Pair) Close() error {
	for i, h := range p.Hosts {
		if h != nil {
			h.Signal(syscall.SIGCONT)
			_ = h.End(syscall.SIGKILL) // being killed is how it should end
		}
		if p.Proxies[i] != nil {
			p.Proxies[i].Close()
		}
	}
	return nil
}

// Keep copies logs and disks to a folder, for who wants to know what happened.
func (p *Pair) Keep(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var errs []error
	for _, h := range p.Hosts {
		for _, suffix := range []string{".log", ".img", ".res", ".strace"} {
			text, err := os.ReadFile(h.Path(suffix))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			errs = append(errs, err, os.WriteFile(filepath.Join(dir, h.Name+suffix), text, 0o600))
		}
	}
	return errors.Join(errs...)
}
