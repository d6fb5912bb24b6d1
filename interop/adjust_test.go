//go:build interop

package interop

import (
	"sync/atomic"
	"testing"

	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
)

// adjustable is a pair that can be told of other options while it runs.
type adjustable struct {
	k *kernel
	p *peer
	o options
}

// kernel has the kernel's operator change its file and adjust.
func (a *adjustable) kernel(proto byte, net, disk string) {
	a.k.t.Helper()
	o := a.o
	o.protocol, o.kernelNet, o.kernelDisk = proto, net, disk
	a.k.configure(o)
	a.k.sh("drbdadm adjust r0")
}

// replblk has replblk's operator change options.
func (a *adjustable) replblk(proto byte, change func(*replication.Config)) {
	a.k.t.Helper()
	o := a.o
	o.protocol, o.core = proto, change
	if res, err := a.p.Adjust(a.p.limit(), o.config()); err != nil || !res.OK() {
		a.k.t.Fatalf("replblk: adjust: %v %v", res, err)
	}
}

// TestAdjust changes options that both must know of while there are writes, in turn by
// either operator, with either node as Primary. No connection is lost over it: the last
// adjust is followed by a new one by choice, which finds both configured alike.
func TestAdjust(t *testing.T) {
	k, p := established(t, options{})
	a := &adjustable{k: k, p: p}
	var connections atomic.Int32
	cancel := p.Watch(countConnections(&connections))
	defer cancel()
	asb := func(c *replication.Config) {
		c.AfterSB = [3]replication.Policy{replication.SBDiscardLocal, replication.SBConsensus, replication.SBViolently}
	}
	const kernelASB = "after-sb-0pri discard-remote; after-sb-1pri consensus; after-sb-2pri violently-as0p;"
	k.sh("drbdadm primary r0")
	for i, proto := range []byte{'A', 'B', 'C', 'B', 'A', 'C'} {
		a.kernel(proto, "", "")
		k.dd(i+1, 1024*i, 2048)
		k.small()
		if i == 0 {
			p.wait("the kernel's protocol", func(state.State) bool { return p.Status().Protocol == replication.ProtocolA })
		}
	}
	k.sh("drbdadm secondary r0")
	settled(k, p)
	p.wait("the kernel is Secondary", peerSecondary)
	p.kind(replication.AdminPrimary)
	for i, proto := range []byte{'A', 'B', 'C', 'A', 'C'} {
		a.replblk(proto, nil)
		p.scribble(uint64(i+1), 10)
	}
	settled(k, p)

	a.kernel('C', kernelASB, "resync-rate 4M; c-max-rate 30M; c-plan-ahead 0;")
	p.scribble(9, 5)
	settled(k, p)
	// What the kernel's operator has changed holds at both ends, so a new connection with
	// replblk's old policies is refused unless it was told.
	k.sh("drbdadm disconnect r0 && drbdadm connect r0")
	settled(k, p)
	a.replblk('C', asb)
	k.allowed = append(k.allowed, "helper")
	show := k.sh("drbdsetup show r0")
	t.Logf("kernel: %s", show)
	p.kind(replication.AdminDisconnect)
	p.kind(replication.AdminConnect)
	settled(k, p)
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want the two that the operators made", n)
	}
}

// TestAdjustRates changes the resync controller of either node during a resync.
func TestAdjustRates(t *testing.T) {
	for _, source := range []string{"kernel", "replblk"} {
		t.Run(source, func(t *testing.T) {
			k, p := start(t, options{kernelDisk: "c-plan-ahead 0; resync-rate 1M;", core: slowly})
			a := &adjustable{k: k, p: p}
			connect(k, p)
			k.allowed = []string{forced}
			if source == "kernel" {
				k.sh("drbdadm primary --force r0")
			} else {
				p.do(replication.Admin{Kind: replication.AdminPrimary, Force: true})
			}
			p.wait("resync", func(s state.State) bool { return s.Conn.Resync() })
			if source == "kernel" { // either operator may speed it up, whoever is the target
				a.replblk('C', func(c *replication.Config) {
					c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 100000
				})
			} else {
				a.kernel('C', "", "c-plan-ahead 0; resync-rate 100M;")
			}
		})
	}
}

// slowly limits a resync to 1 MiB/s.
func slowly(c *replication.Config) {
	c.Volumes[0].PlanAheadTenths, c.Volumes[0].ResyncRateKiB = 0, 1024
}

// countConnections counts how often both nodes have got in touch.
func countConnections(n *atomic.Int32) func(node.Change) {
	return func(c node.Change) {
		if c.Kind == node.ChangeState && c.Old.Conn == state.WFConnection && c.New.Conn == state.WFReportParams {
			n.Add(1)
		}
	}
}
