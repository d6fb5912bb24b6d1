//go:build interop

package interop

import (
	"os"
	"testing"

	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/metadata"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/replication"
)

// TestPlacement: the kernel has its metadata on a device of its own, used whole or as one of
// several indexed parts. Then replblk takes its disk and this metadata over, and the kernel
// replblk's disk, without a resync.
func TestPlacement(t *testing.T) {
	for name, meta := range map[string]metadata.Placement{"external": metadata.FlexExternal, "indexed": metadata.Indexed(1)} {
		t.Run(name, func(t *testing.T) {
			o := options{meta: meta}
			k, p := established(t, o)
			k.sh("drbdadm primary r0")
			k.fio("4m")
			k.dd(1, 65536, 2048)
			k.sh("drbdadm secondary r0")
			settled(k, p)
			before := k.gi()
			k.sh("drbdadm down r0")
			p.close()
			exchangeDisks(t, k.disk, p.disk)
			k.configure(options{}) // replblk's metadata was internal
			k.forgetCache()
			p = k.external(o)
			k.up()
			p.kind(replication.AdminConnect)
			settled(k, p)
			if after := k.gi(); after != before {
				t.Errorf("UUIDs were %v, are %v: there was a resync", before, after)
			}
			p.kind(replication.AdminPrimary)
			p.scribble(1, 20)
		})
	}
}

// external starts replblk's node again with its data on its disk and the metadata that the
// kernel has written to its second one.
func (k *kernel) external(o options) *peer {
	k.t.Helper()
	p := newDisklessPeer(k.t, o, k.peer.disk)
	k.peer = p
	data, err := file.Open(p.disk, file.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	meta, err := file.Open(machine.big, file.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	b := node.Backing{Data: data, Meta: meta, Placement: o.meta, Close: func() error { _ = meta.Close(); return data.Close() }}
	if err := p.AttachVolume(p.limit(), 0, b); err != nil {
		k.t.Fatal(err)
	}
	return p
}

// TestIPv6 is a pair that talks over IPv6.
func TestIPv6(t *testing.T) {
	for name, value := range map[string]string{"disable_ipv6": "0", "keep_addr_on_down": "1"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+tapName+"/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ipCmd(t, "addr add "+peerIPv6+"/64 dev "+tapName+" nodad")
	t.Cleanup(func() { ipCmd(t, "addr del "+peerIPv6+"/64 dev "+tapName) })
	if out, code, err := machine.run("ip addr add "+kernelIPv6+"/64 dev eth0; for i in $(seq 600); do ip addr show dev eth0 | grep -q tentative || exit 0; sleep 0.1; done; exit 1", commandTimeout); err != nil || code != 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _, _, _ = machine.run("ip addr del "+kernelIPv6+"/64 dev eth0", commandTimeout) })
	o := outage()
	o.ipv6 = true
	k, p := established(t, o)
	k.sh("drbdadm primary r0")
	k.dd(1, 0, 2048)
	broken(k, p, func() { k.dd(2, 1024, 2048) })
	settled(k, p)
	k.sh("drbdadm secondary r0")
	p.wait("the kernel is Secondary", peerSecondary)
	p.kind(replication.AdminPrimary)
	p.scribble(1, 10)
}
