package config

import (
	"fmt"
	"slices"
)

// rawConfig is the configuration as settings, before inheritance.
type rawConfig struct {
	builder
	global    []Setting
	common    *rawResource
	resources []*rawResource
	index     map[string]*Resource // resolved, by name
}

// rawResource is one resource{} or common{}.
type rawResource struct {
	name   Word
	scope  Scope
	vols   rawVolumes
	hosts  []*rawHost
	common bool
	// used are the statements that may stand once.
	used map[string]Pos
}

// rawHost is one host section.
type rawHost struct {
	key      Word
	host     Host
	vols     rawVolumes
	hasAddr  bool
	stacked  Word // name of the resource below
	addrWord Word
}

// win is the rule for repeated options of a scope: everything in common{} is
// merged "where not set", so the first one holds.
func (r *rawResource) win(s *section) winner {
	if r.common || s == diskSection {
		return firstWins
	}
	return lastWins
}

// once reports whether the statement named key may stand here, and marks it used.
func (b *builder) once(used map[string]Pos, key Word, what string) bool {
	if first, again := used[what]; again {
		b.fail(key, "conflicting use of "+what+", first used at "+first.String(), "", "")
		return false
	}
	used[what] = key.Pos
	return true
}

// buildFile interprets the statements of drbd.conf.
func (c *rawConfig) buildFile(stmts []*Stmt) {
	used := make(map[string]Pos)
	for _, st := range stmts {
		if c.full() {
			break
		}
		switch {
		case !slices.Contains(topWords, st.Key.Text):
			c.fail(st.Key, "", oneOf(topWords), didYouMean(st.Key.Text, topWords))
		case !st.Block:
			c.fail(st.End, "", `"{"`, "")
		case st.Key.Text == "resource":
			c.resource(st, used)
		case len(st.Args) > 0:
			c.fail(st.Args[0], "", `"{"`, "")
		case !c.once(used, st.Key, "section "+st.Key.Text):
		case st.Key.Text == "global":
			if len(c.resources) > 0 {
				c.warn(st.Key, "global{} should stand in front of the resources")
			}
			c.global = c.settings(globalSection, st.Body, nil, lastWins)
		case st.Key.Text == "common":
			c.common = &rawResource{name: st.Key, common: true, used: make(map[string]Pos)}
			c.scope(c.common, st.Body)
			c.checkCommon(c.common)
		}
	}
}

// checkCommon refuses what belongs to one resource. drbdadm reads volumes in
// common{} and forgets them; a forgotten disk is better refused.
func (c *rawConfig) checkCommon(r *rawResource) {
	if len(r.hosts) > 0 {
		c.fail(r.hosts[0].key, "host section in common{}", "", "")
	}
	for _, v := range r.vols.list {
		c.fail(v.at, "device, disk and meta-disk have no meaning in common{}", "", "")
	}
}

func (c *rawConfig) resource(st *Stmt, used map[string]Pos) {
	if len(st.Args) == 0 {
		c.fail(st.End, "", "a resource name", "")
		return
	}
	name := st.Args[0]
	if !c.name(name, "a resource name") {
		return
	}
	if len(st.Args) > 1 {
		c.fail(st.Args[1], "", `"{"`, "")
		return
	}
	if !c.once(used, name, fmt.Sprintf("resource %q", name.Text)) {
		return
	}
	if len(c.resources) == maxResources {
		c.fail(name, fmt.Sprintf("more than %d resources", maxResources), "", "")
		return
	}
	r := &rawResource{name: name, vols: rawVolumes{win: firstWins}, used: make(map[string]Pos)}
	c.resources = append(c.resources, r)
	c.scope(r, st.Body)
}

// scope interprets the items of resource{} and common{}.
func (c *rawConfig) scope(r *rawResource, body []*Stmt) {
	for _, st := range body {
		if c.full() {
			break
		}
		c.item(r, st)
	}
}

func (c *rawConfig) item(r *rawResource, st *Stmt) {
	key := st.Key.Text
	if !slices.Contains(resourceWords, key) {
		c.fail(st.Key, "", oneOf(resourceWords), c.itemHint(key))
		return
	}
	switch key {
	case "on", "floating", "stacked-on-top-of":
		c.host(r, st)
	case "ignore-on":
		if c.plain(st) {
			c.oneValue(st, "a host name")
			c.warn(st.Key, "deprecated, has no effect")
		}
	case "protocol":
		if c.plain(st) && c.once(r.used, st.Key, "statement protocol") {
			if set, ok := c.setting(netSection, st); ok {
				r.scope.Net = c.put(netSection, r.scope.Net, set, st.Key, r.win(netSection))
			}
		}
	case "device", "meta-disk", "flexible-meta-disk", "volume":
		c.volumeItem(&r.vols, st)
	case "disk":
		if !st.Block {
			c.volumeItem(&r.vols, st)
			return
		}
		c.section(r, st)
	default:
		c.section(r, st)
	}
}

// itemHint helps with an option outside its section.
func (c *rawConfig) itemHint(word string) string {
	for _, s := range drbdSections {
		if s.find(word) != nil {
			return "it belongs in section " + s.name
		}
	}
	return didYouMean(word, resourceWords)
}

func (c *rawConfig) plain(st *Stmt) bool {
	if st.Block {
		c.fail(st.End, "", `";"`, "")
	}
	return !st.Block
}

// block checks for `key {`.
func (c *rawConfig) block(st *Stmt) bool {
	switch {
	case len(st.Args) > 0:
		c.fail(st.Args[0], "", `"{"`, "")
	case !st.Block:
		c.fail(st.End, "", `"{"`, "")
	default:
		return true
	}
	return false
}

// section interprets an option section of a resource or of common{}.
func (c *rawConfig) section(r *rawResource, st *Stmt) {
	if !c.block(st) || !c.once(r.used, st.Key, "section "+st.Key.Text) {
		return
	}
	read := func(s *section, list []Setting) []Setting {
		return c.settings(s, st.Body, list, r.win(s))
	}
	switch st.Key.Text {
	case "net":
		r.scope.Net = read(netSection, r.scope.Net)
	case "disk":
		r.scope.Disk = read(diskSection, r.scope.Disk)
	case "options":
		r.scope.Options = read(optionsSection, r.scope.Options)
	case "startup":
		r.scope.Startup = read(startupSection, r.scope.Startup)
	case "handlers":
		r.scope.Handlers = read(handlersSection, r.scope.Handlers)
	case "syncer":
		c.warn(st.Key, "section of DRBD 8.3; its options are in disk, net and options now")
		for _, o := range st.Body {
			if c.full() {
				break
			}
			c.syncer(r, o)
		}
	case "proxy":
		c.warn(st.Key, "DRBD Proxy is not supported, the section has no effect")
	}
}

// syncer moves an 8.3 option to its section of today.
func (c *rawConfig) syncer(r *rawResource, st *Stmt) {
	for _, m := range syncerMoves {
		if m.old != st.Key.Text {
			continue
		}
		moved := *st
		moved.Key.Text = m.name
		s, list := diskSection, &r.scope.Disk
		switch m.section {
		case "net":
			s, list = netSection, &r.scope.Net
		case "options":
			s, list = optionsSection, &r.scope.Options
		}
		if set, ok := c.setting(s, &moved); ok {
			*list = c.put(s, *list, set, st.Key, r.win(s))
		}
		return
	}
	var known []string
	for _, m := range syncerMoves {
		known = append(known, m.old)
	}
	hint := didYouMean(st.Key.Text, known)
	if diskSection.find(st.Key.Text) != nil {
		hint = "it belongs in section disk"
	}
	c.fail(st.Key, "unknown option in section syncer", "", hint)
}
