package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/replication/state"
)

// adjust reads drbd.conf again and takes over what may change while the resource runs. It
// sends a line for everything that has changed, which says when it counts. Then it brings
// up what is not.
func (d *daemon) adjust(ctx context.Context, m *managed, send func(any) error) error {
	conf, err := d.load()
	if err != nil {
		return control.Errorf(control.ExitConfig, "%s: nothing was changed: %v", m.name(), err)
	}
	res := conf.Resource(m.name())
	if res == nil {
		return control.Errorf(control.ExitConfig, "%s: not in the configuration any more: replblk down %s ends it", m.name(), m.name())
	}
	now, err := findSection(res, d.node)
	if err != nil {
		return control.Errorf(control.ExitConfig, "%s: nothing was changed: %s: %v", m.name(), res.Pos, err)
	}
	now.conf, now.common = conf.Files[0], &conf.Common
	lines, err := m.adjust(ctx, now)
	if err != nil {
		return err
	}
	for _, line := range lines {
		m.log.Info("adjusted", "change", line)
		if err := send(m.name() + ": " + line); err != nil {
			return err
		}
	}
	return m.up(ctx)
}

// adjust takes over the options of now and returns what has changed.
func (m *managed) adjust(ctx context.Context, now *section) ([]string, error) {
	defer m.lock()()
	old := m.options.Load()
	next := m.sec.withOptions(now)
	cfg, err := m.configFor(next)
	if err != nil {
		return nil, err
	}
	if r := m.res.Load(); r != nil {
		res, err := r.Adjust(ctx, cfg)
		if err == nil {
			err = adjustRefusal(m.name(), res)
		}
		if err != nil {
			return nil, err
		}
	}
	m.options.Store(next)
	m.orderAfter(next)
	return append(changedOptions(old, now), m.sec.moved(now)...), nil
}

func adjustRefusal(name string, res state.Result) error {
	switch {
	case res.OK():
		return nil
	case res == state.TwoPrimaries:
		return control.Errorf(control.ExitConfig, "%s: Failure: (164) allow-two-primaries is needed while both nodes are Primary; nothing was changed", name)
	case res == state.ResyncRunning:
		return control.Errorf(control.ExitConfig, "%s: Failure: (149) verify-alg cannot change while a verify runs; nothing was changed", name)
	case res == state.NotSupported:
		return control.Errorf(control.ExitConfig, "%s: Failure: (163) the peer's protocol version is too old to change this while connected; nothing was changed", name)
	default:
		return control.Errorf(control.ExitRefused, "%s: (%d) %v; nothing was changed", name, res, res)
	}
}

// withOptions is s with the options of now.
func (s *section) withOptions(now *section) *section {
	next, res, local := *s, *s.res, *s.local
	res.Own, res.Net, res.Options, res.Startup, res.Handlers = now.res.Own, now.res.Net, now.res.Options, now.res.Startup, now.res.Handlers
	local.Volumes = nil
	for _, v := range s.local.Volumes {
		changed := *v
		if n := now.local.Volume(v.Number); n != nil {
			changed.DiskOptions, changed.DiskSet = n.DiskOptions, n.DiskSet
		}
		local.Volumes = append(local.Volumes, &changed)
	}
	next.res, next.local, next.common, next.conf = &res, &local, now.common, now.conf
	return &next
}

// later says when a change counts that cannot be made in a running resource.
var later = map[string]string{
	"net cram-hmac-alg": atConnect, secretOption: atConnect, "net sndbuf-size": atConnect, "net rcvbuf-size": atConnect,
	"net connect-int": atConnect, "net socket-check-timeout": atConnect,
	"disk al-extents": atAttach, "disk al-updates": atAttach,
	"disk disk-timeout": "for what is asked of the disk from now on; in full from the next attachment on: replblk detach, attach",
	"disk size":         "not changed: replblk resize",
}

const (
	secretOption = "net shared-secret" // not shown

	atConnect = "from the next connection on: replblk disconnect, connect"
	atAttach  = "from the next attachment on: replblk detach, attach"
	atRestart = "not changed: replblk down, then restart the daemon"
)

// changedOptions lists the options that differ, in words.
func changedOptions(old, now *section) []string {
	was, is := old.settings(), now.settings()
	var names []string
	for n := range was {
		names = append(names, n)
	}
	for n := range is {
		if _, both := was[n]; !both {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var lines []string
	for _, n := range names {
		if was[n] == is[n] {
			continue
		}
		line := fmt.Sprintf("%s: %s to %s", n, orDefault(was[n]), orDefault(is[n]))
		if n == secretOption {
			line = n + ": changed"
		}
		option := n
		if i := strings.LastIndex(n, ", volume "); i >= 0 {
			option = n[:i]
		}
		if when := later[option]; when != "" {
			line += " (" + when + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

func orDefault(value string) string {
	if value == "" {
		return "the default"
	}
	return value
}

// settings are the options that were written for a resource and this node, by section
// and name, "net timeout"; the more special one counts.
func (s *section) settings() map[string]string {
	all := make(map[string]string)
	add := func(section string, list []config.Setting, suffix string) {
		for _, o := range list {
			all[section+" "+o.Name+suffix] = strings.Join(o.Values, " ")
		}
	}
	for _, scope := range []*config.Scope{s.common, &s.res.Own} {
		if scope == nil {
			continue
		}
		add("net", scope.Net, "")
		add("disk", scope.Disk, "")
		add("options", scope.Options, "")
		add("handlers", scope.Handlers, "")
	}
	for _, v := range s.local.Volumes {
		add("disk", v.DiskSet, fmt.Sprintf(", volume %d", v.Number))
	}
	return all
}

// moved lists what is not an option and has changed: addresses and devices.
func (s *section) moved(now *section) []string {
	var lines []string
	differs := func(what, was, is string) {
		if was != is {
			lines = append(lines, fmt.Sprintf("%s: %s to %s (%s)", what, orNone(was), orNone(is), atRestart))
		}
	}
	differs("address", addressWord(s.local), addressWord(now.local))
	differs("peer's address", addressWord(s.peer), addressWord(now.peer))
	for _, v := range s.local.Volumes {
		n := now.local.Volume(v.Number)
		if n == nil {
			lines = append(lines, fmt.Sprintf("volume %d: removed (%s)", v.Number, atRestart))
			continue
		}
		differs(fmt.Sprintf("volume %d: disk", v.Number), v.Disk, n.Disk)
		differs(fmt.Sprintf("volume %d: meta-disk", v.Number), v.MetaDisk.Path+" "+v.MetaDisk.Kind(), n.MetaDisk.Path+" "+n.MetaDisk.Kind())
		differs(fmt.Sprintf("volume %d: device", v.Number), v.Device, n.Device)
	}
	for _, n := range now.local.Volumes {
		if s.local.Volume(n.Number) == nil {
			lines = append(lines, fmt.Sprintf("volume %d: new (%s)", n.Number, atRestart))
		}
	}
	return lines
}

func orNone(word string) string {
	if word == "" {
		return "none"
	}
	return word
}
