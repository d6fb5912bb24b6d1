package config

import (
	"slices"
	"strings"
)

// Limits of numbers in statements that are not options.
const (
	maxVolume = 65535
	maxMinor  = 1<<20 - 1
	// maxMetaIndex keeps index * 128 MiB far from overflowing a sector number.
	maxMetaIndex = 1 << 20
	maxVolumes   = 4096 // in one section
	maxHosts     = 32   // in one resource
	maxResources = 4096
	maxRepeats   = 64
)

// rawVolumes are the volumes of a resource or host section.
type rawVolumes struct {
	list []*rawVolume
	// win is the rule for repeated disk options: those of a resource's volumes
	// are merged into the hosts' (first), those of a host's go out whole (last).
	win winner
}

// rawVolume is what one scope says about one volume. A word without a position
// was not written.
type rawVolume struct {
	number   uint16
	implicit bool
	at       Word
	device   Word
	path     string
	minor    uint32
	disk     Word
	metaWord Word
	meta     MetaDisk
	options  []Setting
	optionAt Word // the last disk{} of this volume
}

func (w Word) set() bool { return w.Pos.Line > 0 }

func (v *rawVolumes) find(number uint16) *rawVolume {
	i := slices.IndexFunc(v.list, func(o *rawVolume) bool { return o.number == number })
	if i < 0 {
		return nil
	}
	return v.list[i]
}

// volumeItem interprets a vol-item outside of volume{}: it belongs to the
// implicit volume 0. And it interprets volume{} itself.
func (c *rawConfig) volumeItem(vols *rawVolumes, st *Stmt) {
	number, implicit := uint64(0), true
	if st.Key.Text == "volume" {
		var ok bool
		implicit = false
		if number, ok = c.volumeHead(st); !ok {
			return
		}
	}
	v := vols.find(uint16(number))
	switch {
	case len(vols.list) > 0 && vols.list[0].implicit != implicit:
		c.fail(st.Key, "mixing explicit and implicit volumes is not allowed", "", "")
		return
	case v != nil && !implicit:
		c.fail(st.Args[0], "volume defined twice, first at "+v.at.Pos.String(), "", "")
		return
	case len(vols.list) == maxVolumes:
		c.fail(st.Key, "too many volumes", "", "")
		return
	case v == nil:
		v = &rawVolume{number: uint16(number), implicit: implicit, at: st.Key}
		vols.list = append(vols.list, v)
	}
	if implicit {
		c.volumeStmt(vols, v, st)
		if st.Key.Text == "disk" && v.disk.set() && v.optionAt.set() {
			// Not refused because drbdadm dump writes it.
			c.warn(st.Key, "path and options of the disk in one host section: drbdadm reads that only inside volume 0 { }")
		}
		return
	}
	for _, item := range st.Body {
		if c.full() {
			break
		}
		if !slices.Contains(volumeWords, item.Key.Text) {
			c.fail(item.Key, "", oneOf(volumeWords)+` | "}"`, didYouMean(item.Key.Text, volumeWords))
			continue
		}
		c.volumeStmt(vols, v, item)
	}
}

func (c *rawConfig) volumeHead(st *Stmt) (uint64, bool) {
	cur := cursor{b: &c.builder, words: st.Args, end: st.End}
	w := cur.next()
	number, ok := integer(w, maxVolume)
	if !ok {
		return 0, cur.fail(w, "a volume number in 0..65535")
	}
	if !st.Block {
		return 0, cur.done() && cur.fail(st.End, `"{"`)
	}
	return number, cur.done()
}

// volumeStmt interprets device, disk and meta-disk.
func (c *rawConfig) volumeStmt(vols *rawVolumes, v *rawVolume, st *Stmt) {
	if st.Key.Text == "disk" && st.Block {
		if !c.block(st) {
			return
		}
		if v.implicit && v.optionAt.set() {
			c.conflict(st.Key, v.optionAt)
		} else if v.optionAt.set() {
			c.warn(st.Key, "replaces the disk{} at %s", v.optionAt.Pos)
		}
		v.optionAt = st.Key
		v.options = c.settings(diskSection, st.Body, nil, vols.win)
		return
	}
	if !c.plain(st) {
		return
	}
	var first Word
	switch st.Key.Text {
	case "device":
		first, v.device = v.device, st.Key
		c.device(v, st)
	case "disk":
		first = v.disk
		if w, ok := c.oneValue(st, "a path"); ok && c.path(w) {
			v.disk = w
		}
	default:
		first, v.metaWord = v.metaWord, st.Key
		c.metaDisk(v, st)
	}
	if first.set() {
		c.conflict(st.Key, first)
	}
}

// conflict refuses a second use of a statement.
func (c *rawConfig) conflict(again, first Word) {
	c.fail(again, "conflicting use of "+again.Text+", first used at "+first.Pos.String(), "", "")
}

func (c *rawConfig) path(w Word) bool {
	if w.Text == "" {
		c.fail(Word{Pos: w.Pos, Text: `""`}, "", "a path", "")
	}
	return w.Text != ""
}

// device interprets device-spec: `PATH [minor N]` or `minor N`.
func (c *rawConfig) device(v *rawVolume, st *Stmt) {
	cur := cursor{b: &c.builder, words: st.Args, end: st.End}
	isMinor := func(w Word) bool { return w.kind == wordBare && w.Text == "minor" }
	var path Word
	if !isMinor(cur.peek()) {
		path = cur.next()
		if !c.value(path, "a device path | minor N") {
			return
		}
	}
	explicit := isMinor(cur.peek())
	var minor uint64
	if explicit {
		cur.next()
		w := cur.next()
		var ok bool
		if minor, ok = integer(w, maxMinor); !ok {
			cur.fail(w, "a minor number in 0..1048575")
			return
		}
	}
	if cur.done() {
		c.deviceName(v, path, uint32(minor), explicit)
	}
}

// deviceName settles path and minor, each of which may imply the other.
func (c *rawConfig) deviceName(v *rawVolume, path Word, minor uint32, explicit bool) {
	if !path.set() {
		v.path, v.minor = "/dev/drbd"+itoa(minor), minor
		return
	}
	name, ok := strings.CutPrefix(strings.TrimPrefix(path.Text, "/dev/"), "drbd")
	if !ok {
		c.fail(path, "", "a device name that starts with /dev/drbd", "")
		return
	}
	v.path = "/dev/drbd" + name
	n, numeric := integer(Word{kind: wordBare, Text: name}, maxMinor)
	numeric = numeric && name != ""
	switch {
	case strings.HasPrefix(name, "_") && explicit:
		v.minor = minor
	case !numeric && explicit:
		c.fail(path, "", "a device name that starts with /dev/drbd_, or /dev/drbd"+itoa(minor), "")
	case !numeric:
		c.fail(path, "no minor given, and the name does not end in one", "/dev/drbdN with N in 0..1048575 | minor N", "")
	case explicit && uint32(n) != minor:
		c.fail(path, "the name contradicts the minor", "/dev/drbd"+itoa(minor), "")
	default:
		v.minor = uint32(n)
	}
}

// metaDisk interprets md-spec.
func (c *rawConfig) metaDisk(v *rawVolume, st *Stmt) {
	cur := cursor{b: &c.builder, words: st.Args, end: st.End}
	const want = "internal | PATH | PATH [ index ]"
	w := cur.next()
	if !c.value(w, want) || !c.path(w) {
		return
	}
	v.meta = MetaDisk{Path: w.Text, Index: -1}
	switch {
	case w.Text == "internal":
		v.meta = MetaDisk{}
	case st.Key.Text == "meta-disk" && cur.peek().is("["):
		cur.next()
		w := cur.next()
		n, ok := integer(w, maxMetaIndex)
		if !ok {
			cur.fail(w, "an index in 0..1048576")
			return
		}
		v.meta.Index = int32(n)
		if !cur.punct("]") {
			return
		}
	}
	cur.done()
}

// host interprets a host section.
func (c *rawConfig) host(r *rawResource, st *Stmt) {
	h := &rawHost{key: st.Key, host: Host{Pos: st.Key.Pos}}
	var ok bool
	switch st.Key.Text {
	case "on":
		h.host.Names, ok = c.hostNames(st)
		for _, n := range h.host.Names {
			ok = c.once(r.used, st.Key, "host section on "+n) && ok
		}
	case "floating":
		h.host.Floating, h.hasAddr = true, true
		h.addrWord = st.Key
		h.host.Address, ok = c.address(st.Args, st.End)
	default:
		h.stacked, ok = c.oneValue(st, "a resource name")
		h.host.StackedOn = h.stacked.Text
	}
	if ok && !st.Block && !h.host.Floating {
		c.fail(st.End, "", `"{"`, "")
		ok = false
	}
	if ok && len(r.hosts) == maxHosts {
		c.fail(st.Key, "too many host sections in one resource", "", "")
		ok = false
	}
	if !ok {
		return
	}
	r.hosts = append(r.hosts, h)
	for _, item := range st.Body {
		if c.full() {
			break
		}
		c.hostItem(h, item)
	}
}

func (c *rawConfig) hostItem(h *rawHost, st *Stmt) {
	key := st.Key.Text
	switch {
	case !slices.Contains(hostWords, key):
		c.fail(st.Key, "", oneOf(hostWords), c.hostHint(key))
	case key == "address":
		c.hostAddress(h, st)
	case key == "alternate-link-address":
		if c.plain(st) {
			c.address(st.Args, st.End)
			c.warn(st.Key, "not supported, has no effect")
		}
	case key == "options":
		// Checked and dropped: drbdadm-84 reads it and passes none of it on.
		if c.block(st) {
			c.settings(optionsSection, st.Body, nil, lastWins)
			c.warn(st.Key, "has no effect in a host section, as with drbdadm; put it into the resource")
		}
	case key == "proxy":
		c.fail(st.Key, "DRBD Proxy is not supported", "", "")
	case h.stacked.set() && strings.HasSuffix(key, "disk"):
		c.fail(st.Key, "a stacked resource uses the device of "+h.stacked.Text, "device | address | volume", "")
	default:
		c.volumeItem(&h.vols, st)
	}
}

func (c *rawConfig) hostHint(word string) string {
	if slices.Contains(resourceWords, word) {
		return "it belongs in resource{}, outside the host section"
	}
	return didYouMean(word, hostWords)
}

func (c *rawConfig) hostAddress(h *rawHost, st *Stmt) {
	if h.host.Floating {
		c.fail(st.Key, "address statement in a floating section, which has its address at the top", "", "")
		return
	}
	if h.hasAddr {
		c.conflict(st.Key, h.addrWord)
		return
	}
	if c.plain(st) {
		h.hasAddr, h.addrWord = true, st.Key
		h.host.Address, _ = c.address(st.Args, st.End)
	}
}
