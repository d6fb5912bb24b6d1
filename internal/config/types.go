package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Config is what drbd.conf and its includes say, with every default filled in
// and everything inherited.
type Config struct {
	Global GlobalOptions
	// GlobalSet are the statements of global{} as written.
	GlobalSet []Setting
	// Common are the options of common{}; Resources have already inherited them.
	Common    Scope
	HasCommon bool
	// Resources in the order of the text.
	Resources []*Resource
	Warnings  []Warning
	// Files that were read, in order.
	Files []string
}

// Resource finds a resource by name, nil if there is none.
func (c *Config) Resource(name string) *Resource {
	for _, r := range c.Resources {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Setting is one option as it was written, under its 8.4 name: what dump prints,
// and the record of what was set rather than defaulted.
type Setting struct {
	Name string
	// Values has one element, except for become-primary-on. A flag is "yes" or "no".
	Values []string
	Pos    Pos
	// at is the first value, for errors found later.
	at Word
}

// Scope holds the options set in one common{} or resource{}, not inherited ones,
// each at most once.
type Scope struct {
	Net      []Setting
	Disk     []Setting
	Options  []Setting
	Startup  []Setting
	Handlers []Setting
}

// Resource is one resource{} section.
type Resource struct {
	Name string
	Pos  Pos
	// Own are the options this section sets itself.
	Own Scope

	// What holds after inheritance from common{}, with defaults.
	Net      NetOptions
	Options  ResourceOptions
	Startup  StartupOptions
	Handlers []Handler // sorted by name

	// Hosts in the order of the text.
	Hosts []*Host
}

// Handler is a shell command for one event of spec 10.5.
type Handler struct {
	Name    string
	Command string
}

// Handler returns the command for an event, "" if none is configured.
func (r *Resource) Handler(name string) string {
	for _, h := range r.Handlers {
		if h.Name == name {
			return h.Command
		}
	}
	return ""
}

// Host is one `on`, `floating` or `stacked-on-top-of` section: a node's end of a resource.
type Host struct {
	Pos Pos
	// Names are the host names of `on`; for a stacked section those of the
	// resource below; empty for `floating`.
	Names []string
	// Floating sections belong to the node that has Address configured.
	Floating bool
	// StackedOn is the resource below, "" for ordinary sections.
	StackedOn string
	Address   Address
	// Volumes ascend by Number and have the same numbers on every host.
	Volumes []*Volume
}

// String names the section as the user wrote it.
func (h *Host) String() string {
	switch {
	case h.StackedOn != "":
		return "stacked-on-top-of " + h.StackedOn
	case h.Floating:
		return "floating " + h.Address.String()
	case len(h.Names) == 0:
		return "on ?"
	}
	var s strings.Builder
	s.WriteString("on")
	for _, n := range h.Names {
		s.WriteString(" " + n)
	}
	return s.String()
}

// Volume finds a volume by number, nil if there is none.
func (h *Host) Volume(number uint16) *Volume {
	for _, v := range h.Volumes {
		if v.Number == number {
			return v
		}
	}
	return nil
}

// Volume is one replicated block device on one host.
type Volume struct {
	Number uint16
	Pos    Pos
	// Device is the full path, /dev/drbd<minor> if only the minor was given.
	Device string
	Minor  uint32 // 0..2^20-1
	// Disk is the backing device: a block device or a regular file.
	Disk     string
	MetaDisk MetaDisk
	// DiskSet are the disk options that hold for this volume only.
	DiskSet []Setting
	// DiskOptions are those of the volume, the resource and common{}, with defaults.
	DiskOptions DiskOptions

	// Where the values above were written, for errors found later.
	deviceAt, diskAt, metaAt Word
}

// MetaPath is the device with the metadata: the disk itself if it is internal.
func (v *Volume) MetaPath() string {
	if v.MetaDisk.Internal() {
		return v.Disk
	}
	return v.MetaDisk.Path
}

// MetaDisk says where the metadata of a volume is: internal, in slot Index of
// Path (128 MiB each), or alone on Path (flexible).
type MetaDisk struct {
	// Path is empty for internal metadata.
	Path string
	// Index is -1 for flexible external metadata.
	Index int32
}

// Internal reports whether the metadata is at the end of the data device.
func (m MetaDisk) Internal() bool { return m.Path == "" }

// Flexible reports whether the metadata has a device to itself.
func (m MetaDisk) Flexible() bool { return m.Path != "" && m.Index < 0 }

// Kind is the word drbdmeta and drbdsetup use: internal, flexible, or the index (11.4).
func (m MetaDisk) Kind() string {
	switch {
	case m.Internal():
		return "internal"
	case m.Flexible():
		return "flexible"
	}
	return fmt.Sprint(m.Index)
}

// Family is an address family of the grammar.
type Family string

// The families. SDP and SSOCKS (also written sci) are only read, not spoken.
const (
	IPv4   Family = "ipv4"
	IPv6   Family = "ipv6"
	SDP    Family = "sdp"
	SSOCKS Family = "ssocks"
)

// Address is where a node listens for its peer.
type Address struct {
	Family Family
	IP     netip.Addr
	Port   uint16
}

// AddrPort is the address for package net.
func (a Address) AddrPort() netip.AddrPort { return netip.AddrPortFrom(a.IP, a.Port) }

// String writes the address as drbd.conf does: "ipv6 [::1]:7789".
func (a Address) String() string { return string(a.Family) + " " + a.AddrPort().String() }
