package config

import (
	"fmt"
	"slices"
	"strconv"
)

// check refuses what no single statement shows: values used twice, and options
// that DRBD refuses together (11.3). The kernel would refuse the latter when the
// resource comes up; here the operator still sits before the file.
func (c *rawConfig) check(cfg *Config) {
	u := uses{c: c, at: make(map[string]Pos)}
	for i, r := range cfg.Resources {
		c.checkNet(c.resources[i], r)
		c.checkPrimaries(c.resources[i], r)
		for j, h := range r.Hosts {
			u.host(c.resources[i].hosts[j], h)
		}
	}
	c.checkAfterCycles(cfg)
}

func (c *rawConfig) checkNet(raw *rawResource, r *Resource) {
	at := func(name string) Word {
		for _, list := range [][]Setting{raw.scope.Net, raw.scope.Disk, c.commonScope().Net, c.commonScope().Disk} {
			for _, s := range list {
				if s.Name == name {
					return Word{Pos: s.Pos, Text: name}
				}
			}
		}
		return raw.name
	}
	n := &r.Net
	if n.AllowTwoPrimaries && n.Protocol != ProtocolC {
		c.fail(at("allow-two-primaries"), "not with protocol "+string(n.Protocol)+" in resource "+r.Name, "protocol C", "")
	}
	if n.OnCongestion != CongestionBlock && n.Protocol != ProtocolA {
		c.fail(at("on-congestion"), string(n.OnCongestion)+" not with protocol "+string(n.Protocol)+" in resource "+r.Name, "protocol A", "")
	}
	if n.Protocol == ProtocolA && slices.ContainsFunc(r.Hosts, stonith) {
		c.fail(at("fencing"), "resource-and-stonith not with protocol A in resource "+r.Name, "protocol B | C", "")
	}
}

func (c *rawConfig) commonScope() *Scope {
	if c.common == nil {
		return &Scope{}
	}
	return &c.common.scope
}

func stonith(h *Host) bool {
	return slices.ContainsFunc(h.Volumes, func(v *Volume) bool { return v.DiskOptions.Fencing == FencingResourceAndStonith })
}

// checkPrimaries checks become-primary-on against the hosts of the resource.
func (c *rawConfig) checkPrimaries(raw *rawResource, r *Resource) {
	at := Word{Pos: raw.name.Pos, Text: "become-primary-on"}
	for _, list := range [][]Setting{c.commonScope().Startup, raw.scope.Startup} {
		for _, s := range list {
			if s.Name == "become-primary-on" {
				at.Pos = s.Pos
			}
		}
	}
	on := r.Startup.BecomePrimaryOn
	if len(r.Hosts) == 0 || len(on) == 0 {
		return
	}
	if slices.Equal(on, []string{"both"}) {
		if !r.Net.AllowTwoPrimaries {
			c.fail(at, "is both, but allow-two-primaries is not set in resource "+r.Name, "", "")
		}
		return
	}
	for _, name := range on {
		named := func(h *Host) bool { return h.Floating || slices.Contains(h.Names, name) }
		if !slices.ContainsFunc(r.Hosts, named) {
			c.fail(at, fmt.Sprintf("contains %q, which no host section of resource %s names", name, r.Name), "", "")
		}
	}
}

// uses remembers what must not be used twice, by a key that says what it is.
type uses struct {
	c  *rawConfig
	at map[string]Pos
}

func (u *uses) claim(w Word, what string) {
	u.c.once(u.at, w, what)
}

// host claims everything one host section uses. A floating section counts as a
// node of its own, named by its address.
func (u *uses) host(raw *rawHost, h *Host) {
	address := h.Address.AddrPort().String()
	if h.Address.IP.IsLoopback() {
		// The same loopback address on two nodes is two addresses.
		for _, n := range nodes(h) {
			u.claim(raw.addrWord, "address "+n+" "+address)
		}
	} else {
		u.claim(raw.addrWord, "address "+address)
	}
	for _, n := range nodes(h) {
		for _, v := range h.Volumes {
			u.volume(n, v, h.StackedOn != "")
		}
	}
}

func nodes(h *Host) []string {
	if len(h.Names) == 0 {
		return []string{h.Address.IP.String()}
	}
	return h.Names
}

func (u *uses) volume(node string, v *Volume, stacked bool) {
	u.claim(v.deviceAt, "device minor "+itoa(v.Minor)+" on "+node)
	if v.Device != "/dev/drbd"+itoa(v.Minor) {
		u.claim(v.deviceAt, "device "+v.Device+" on "+node)
	}
	if stacked {
		return // its disk is the lower resource's device
	}
	u.claim(v.diskAt, "disk "+v.Disk+" on "+node)
	m := v.MetaDisk
	switch {
	case m.Internal():
	case m.Path == v.Disk:
		u.c.fail(v.metaAt, "meta-disk and disk are both "+m.Path, "meta-disk internal", "")
	case m.Flexible():
		u.claim(v.metaAt, "meta-disk "+m.Path+" on "+node)
	default:
		u.claim(v.metaAt, "meta-disk "+m.Path+"["+strconv.Itoa(int(m.Index))+"] on "+node)
	}
}

// maxAfterSteps bounds a chain of resync-after; longer ones are not followed.
const maxAfterSteps = 256

// checkAfterCycles refuses resync-after that leads back to its own volume: none
// of them would ever resync. The kernel refuses it too.
func (c *rawConfig) checkAfterCycles(cfg *Config) {
	for _, r := range cfg.Resources {
		for _, h := range r.Hosts {
			for _, v := range h.Volumes {
				if c.afterCycle(h, v) {
					c.fail(afterWord(r, cfg, v),
						fmt.Sprintf("resync-after of %s/%d leads back to itself", r.Name, v.Number), "", "")
				}
			}
		}
	}
}

// afterCycle follows resync-after from v until it ends or is back at v. A walk
// may enter a cycle without v, hence the limit; that cycle is reported at its own
// volumes.
func (c *rawConfig) afterCycle(h *Host, v *Volume) bool {
	w := v
	for range maxAfterSteps {
		if w.DiskOptions.ResyncAfter == "" {
			return false
		}
		next, problem := c.findAfter(h, w.DiskOptions.ResyncAfter)
		if next == nil || problem != "" {
			return false
		}
		if next.Minor == v.Minor {
			return true
		}
		w = next
	}
	return false
}
