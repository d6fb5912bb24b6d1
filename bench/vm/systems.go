package main

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// system is one of the two that are compared.
type system struct {
	name    string
	device  string // in the first machine, once it is Primary
	process string // whose counters are read, "" for none
	up      string // on both: takes the disk and connects
	wait    string // on both: until they are connected and in sync
	primary string // on the first: makes device usable
	down    string // on the first, then on the second
	// invalidate on the second makes the first one's disk its source; synced returns
	// when that is done. disconnect and connect are for the first.
	invalidate, synced  string
	disconnect, connect string
}

// command is how replblk is called in the machines.
const command = "replblk --node $(hostname) -c /etc/drbd.conf --config /etc/replblk.conf"

var systems = []system{
	{
		name: "kernel", device: "drbd0",
		up:         "drbdadm up r0",
		wait:       "drbdadm wait-connect r0; until grep -q 'cs:Connected.*ds:UpToDate/UpToDate' /proc/drbd; do sleep 0.2; done",
		primary:    "drbdadm primary r0",
		down:       "drbdadm secondary r0; drbdadm down r0",
		invalidate: "drbdadm invalidate r0",
		synced:     "drbdsetup wait-sync 0",
		disconnect: "drbdadm disconnect r0",
		connect:    "drbdadm connect r0",
	},
	{
		name: "replblk", device: "nbd0", process: "replblk",
		up:         command + " run >>/tmp/replblk.log 2>&1 & until " + command + " role r0 >/dev/null 2>&1; do sleep 0.2; done",
		wait:       command + " wait-connect r0; until [ \"$(" + command + " dstate r0)\" = UpToDate/UpToDate ]; do sleep 0.2; done",
		primary:    command + " primary r0 && nbd-client -unix /run/nbd.sock /dev/nbd0 -N r0",
		down:       "[ $(hostname) = b ] || nbd-client -d /dev/nbd0; killall -TERM replblk; while pidof replblk >/dev/null; do sleep 0.1; done",
		invalidate: command + " invalidate r0",
		synced:     command + " wait-sync r0 >/dev/null 2>&1",
		disconnect: command + " disconnect r0",
		connect:    command + " connect r0",
	},
}

// configuration is the same for both systems. The resync has no brake, so that its speed is
// that of the code and not of a controller.
func configuration() string {
	var b strings.Builder
	b.WriteString("global { usage-count no; }\nresource r0 {\n net { protocol C; max-buffers 8000; connect-int 1; }\n" +
		" disk { c-plan-ahead 0; resync-rate 4096M; c-min-rate 0; }\n device /dev/drbd0;\n meta-disk internal;\n")
	for i, name := range nodeNames {
		fmt.Fprintf(&b, " on %s { disk /dev/vda; address %s:7789; }\n", name, addresses[i])
	}
	return b.String() + "}\n"
}

// prepare gives both machines configuration, modules and metadata, and brings the disks
// into sync without copying them.
func (b *bench) prepare() error {
	own := "control { socket \"/run/control\"; }\nlog { level info; }\nnbd r0 { listen \"unix:/run/nbd.sock\"; resource r0; export-name r0; }\n" +
		"resource r0 { direct-io " + b.direct + "; }\n"
	write := func(path, text string) string {
		return "echo " + base64.StdEncoding.EncodeToString([]byte(text)) + " | base64 -d >" + path + "\n"
	}
	script := write("/etc/drbd.conf", configuration()) + write("/etc/replblk.conf", own) + `
		set -e
		modprobe drbd
		insmod /lib/nbd.ko
		mount -t tracefs none /sys/kernel/tracing
		drbdadm -- --force create-md r0 </dev/null
		drbdadm up r0`
	if err := b.both(script); err != nil {
		return err
	}
	_, err := b.nodes[0].run("set -e; drbdadm wait-connect r0; drbdadm -- --clear-bitmap new-current-uuid r0")
	if err != nil {
		return err
	}
	if err := b.both(systems[0].wait); err != nil {
		return err
	}
	return b.stop(&systems[0])
}

// stop ends a system, the Primary first.
func (b *bench) stop(s *system) error {
	for _, m := range b.nodes {
		if _, err := m.run(s.down); err != nil {
			return err
		}
	}
	return nil
}

// both runs a script in both machines at once.
func (b *bench) both(script string) error {
	second := make(chan error, 1)
	go func() {
		_, err := b.nodes[1].run(script)
		second <- err
	}()
	_, err := b.nodes[0].run(script)
	if other := <-second; err == nil {
		err = other
	}
	return err
}
