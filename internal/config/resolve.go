package config

import (
	"slices"
	"strconv"
	"strings"
)

// resolve turns settings into structs: inheritance (11.2), defaults, volumes.
func (c *rawConfig) resolve() *Config {
	out := &Config{GlobalSet: c.global}
	apply(globalSpecs, c.global, &out.Global)
	if c.common != nil {
		out.HasCommon, out.Common = true, c.common.scope
	}
	c.index = make(map[string]*Resource)
	for _, r := range c.resources {
		res := c.resolveResource(r, &out.Common)
		out.Resources = append(out.Resources, res)
		c.index[res.Name] = res
	}
	for i, r := range c.resources {
		c.resolveStacked(r, out.Resources[i], out)
	}
	for _, r := range out.Resources {
		c.resolveAfter(r, out)
	}
	return out
}

// inherit adds the settings of lower that higher does not have.
func inherit(higher, lower []Setting) []Setting {
	out := slices.Clone(higher)
	for _, s := range lower {
		if !slices.ContainsFunc(higher, func(h Setting) bool { return h.Name == s.Name }) {
			out = append(out, s)
		}
	}
	return out
}

func (c *rawConfig) resolveResource(r *rawResource, common *Scope) *Resource {
	out := &Resource{Name: r.name.Text, Pos: r.name.Pos, Own: r.scope}
	apply(netSpecs, inherit(r.scope.Net, common.Net), &out.Net)
	apply(resourceSpecs, inherit(r.scope.Options, common.Options), &out.Options)
	apply(startupSpecs, inherit(r.scope.Startup, common.Startup), &out.Startup)
	apply(handlerSpecs, inherit(r.scope.Handlers, common.Handlers), &out.Handlers)
	slices.SortFunc(out.Handlers, func(a, b Handler) int { return strings.Compare(a.Name, b.Name) })
	disk := inherit(r.scope.Disk, common.Disk)
	for _, h := range r.hosts {
		out.Hosts = append(out.Hosts, c.resolveHost(r, h, disk))
	}
	c.sameVolumes(r, out)
	return out
}

// resolveHost completes a host section with what the resource scope says.
func (c *rawConfig) resolveHost(r *rawResource, h *rawHost, disk []Setting) *Host {
	host := h.host
	if !h.hasAddr {
		c.fail(h.key, "address is missing in "+host.String(), "", "")
	}
	if len(r.vols.list)+len(h.vols.list) == 0 {
		// Nothing was said about any volume: name what is missing of volume 0.
		h.vols.list = []*rawVolume{{implicit: true, at: h.key}}
	}
	for _, v := range h.vols.list {
		if w := r.vols.list; len(w) > 0 && w[0].implicit != v.implicit {
			c.fail(v.at, "mixing explicit and implicit volumes is not allowed", "", "the other kind stands at "+w[0].at.Pos.String())
			return &host
		}
		host.Volumes = append(host.Volumes, c.resolveVolume(h, v, r.vols.find(v.number), disk))
	}
	for _, v := range r.vols.list {
		if h.vols.find(v.number) == nil {
			own := &rawVolume{number: v.number, implicit: v.implicit, at: v.at}
			host.Volumes = append(host.Volumes, c.resolveVolume(h, own, v, disk))
		}
	}
	slices.SortFunc(host.Volumes, func(a, b *Volume) int { return int(a.Number) - int(b.Number) })
	return &host
}

// resolveVolume merges a volume of a host with the one of the resource, if any.
// Disk options set for the resource's volume rank lowest, below common{}: odd,
// but it is what drbdadm does. Those that survive are kept as the host's own,
// which gives the same result when dumped.
func (c *rawConfig) resolveVolume(h *rawHost, v, base *rawVolume, disk []Setting) *Volume {
	if base == nil {
		base = &rawVolume{}
	}
	out := &Volume{Number: v.number, Pos: v.at.Pos, Device: v.path, Minor: v.minor, Disk: v.disk.Text, MetaDisk: v.meta,
		deviceAt: v.device, diskAt: v.disk, metaAt: v.metaWord}
	if !v.device.set() {
		out.Device, out.Minor, out.deviceAt = base.path, base.minor, base.device
	}
	if !v.disk.set() {
		out.Disk, out.diskAt = base.disk.Text, base.disk
	}
	if !v.metaWord.set() {
		out.MetaDisk, out.metaAt = base.meta, base.metaWord
	}
	missing := func(what string) {
		c.fail(h.key, what+" is missing in "+h.host.String()+" for volume "+strconv.Itoa(int(v.number)), "", "")
	}
	if out.Device == "" {
		missing("device")
	}
	if out.Disk == "" && !h.stacked.set() {
		missing("disk")
	}
	if !out.metaAt.set() && !h.stacked.set() {
		missing("meta-disk")
	}
	above := inherit(v.options, disk)
	out.DiskSet = slices.Clone(v.options)
	for _, s := range base.options {
		if !slices.ContainsFunc(above, func(a Setting) bool { return a.Name == s.Name }) {
			out.DiskSet = append(out.DiskSet, s)
		}
	}
	apply(diskSpecs, inherit(out.DiskSet, disk), &out.DiskOptions)
	out.DiskOptions.ResyncAfterMinor = -1
	return out
}

// sameVolumes checks that every host section has the same volumes.
func (c *rawConfig) sameVolumes(r *rawResource, out *Resource) {
	for i, h := range out.Hosts {
		for j, other := range out.Hosts {
			for _, v := range h.Volumes {
				if i != j && other.Volume(v.Number) == nil {
					c.fail(r.hosts[i].key, "volume "+strconv.Itoa(int(v.Number))+" is not defined in "+other.String(), "", "")
					return
				}
			}
		}
		if c.implicit(r, i) != c.implicit(r, 0) {
			c.fail(r.hosts[i].key, "volume 0 must not be implicit in one host section and explicit in another", "", "")
			return
		}
	}
}

// implicit reports whether the volume of the i-th host was written without volume{}.
func (c *rawConfig) implicit(r *rawResource, i int) bool {
	list := r.hosts[i].vols.list
	if len(list) == 0 {
		list = r.vols.list
	}
	return len(list) > 0 && list[0].implicit
}

// resolveStacked completes `stacked-on-top-of`: names and disks are those of the
// resource below, metadata is internal.
func (c *rawConfig) resolveStacked(r *rawResource, out *Resource, cfg *Config) {
	for i, h := range out.Hosts {
		if h.StackedOn == "" {
			continue
		}
		at := r.hosts[i].stacked
		lower := c.index[h.StackedOn]
		switch {
		case lower == nil:
			c.fail(at, "unknown resource", "", didYouMean(at.Text, resourceNames(cfg)))
			continue
		case lower == out || len(lower.Hosts) == 0 || slices.ContainsFunc(lower.Hosts, func(l *Host) bool { return l.StackedOn != "" }):
			c.fail(at, "cannot be stacked upon", "an unstacked resource with host sections", "")
			continue
		}
		for _, l := range lower.Hosts {
			h.Names = append(h.Names, l.Names...)
		}
		for _, v := range h.Volumes {
			below := lower.Hosts[0].Volume(v.Number)
			if below == nil {
				c.fail(at, "has no volume "+strconv.Itoa(int(v.Number)), "", "")
				continue
			}
			v.Disk, v.MetaDisk = below.Device, MetaDisk{}
		}
	}
}

func resourceNames(cfg *Config) []string {
	var out []string
	for _, r := range cfg.Resources {
		out = append(out, r.Name)
	}
	return out
}

// resolveAfter finds the minor of each resync-after. Like drbdadm it only warns
// about a target that does not exist.
func (c *rawConfig) resolveAfter(r *Resource, cfg *Config) {
	for _, h := range r.Hosts {
		for _, v := range h.Volumes {
			after := v.DiskOptions.ResyncAfter
			if after == "" {
				continue
			}
			target, problem := c.findAfter(h, after)
			at := afterWord(r, cfg, v)
			switch {
			case problem != "" && target == nil:
				c.warn(at, "resync-after has no effect in %s: %s", h, problem)
				v.DiskOptions.ResyncAfter = ""
			case problem != "":
				c.fail(at, problem, "RESOURCE/VOLUME", "")
			default:
				v.DiskOptions.ResyncAfterMinor = int32(target.Minor)
			}
		}
	}
}

// afterWord is the resync-after of v as written.
func afterWord(r *Resource, cfg *Config, v *Volume) Word {
	for _, list := range [][]Setting{v.DiskSet, r.Own.Disk, cfg.Common.Disk} {
		for _, s := range list {
			if s.Name == "resync-after" {
				return s.at
			}
		}
	}
	return Word{Pos: v.Pos, Text: v.DiskOptions.ResyncAfter}
}

// findAfter resolves RESOURCE or RESOURCE/VOLUME on the node of host h. A
// problem with a target is an error, one without only a reason to ignore the option.
func (c *rawConfig) findAfter(h *Host, after string) (target *Volume, problem string) {
	name, number, qualified := strings.Cut(after, "/")
	r := c.index[name]
	if r == nil {
		return nil, "unknown resource"
	}
	for _, other := range r.Hosts {
		if other.StackedOn != h.StackedOn || !sameNode(h, other) {
			continue
		}
		if !qualified {
			if len(other.Volumes) > 1 {
				return other.Volumes[0], "resource " + name + " has several volumes"
			}
			return other.Volumes[0], ""
		}
		n, ok := integer(Word{kind: wordBare, Text: number}, maxVolume)
		if !ok {
			return other.Volumes[0], "not a volume number"
		}
		if v := other.Volume(uint16(n)); v != nil {
			return v, ""
		}
		return nil, "unknown volume"
	}
	return nil, "resource " + name + " is not on the same node"
}

// sameNode reports whether two host sections speak of one node: by a name, or by
// the address where a section has no names.
func sameNode(a, b *Host) bool {
	if a.Floating || b.Floating {
		return a.Address.IP == b.Address.IP
	}
	return slices.ContainsFunc(a.Names, func(n string) bool { return slices.Contains(b.Names, n) })
}
