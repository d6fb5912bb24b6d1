package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrNotLocal says that a resource has no host section for this node; such
// resources are ignored on it.
var ErrNotLocal = errors.New("no host section for this node")

// Local finds the section of this node and the one of its peer. An `on` section
// matches by hostname, a `floating` one by an address of the node; stacked
// sections never match, as with drbdadm without --stacked.
//
// Hostname is uname -n, or what __DRBD_NODE__ replaces it with. The peer is nil
// if the resource has no other section. With three or more sections the peer is
// the operator's choice (--peer): Local then fails, but still returns the local
// section; [Resource.Peer] finds the peer by name.
func (r *Resource) Local(hostname string, addrs []netip.Addr) (local, peer *Host, err error) {
	for _, h := range r.Hosts {
		if !h.matches(hostname, addrs) {
			continue
		}
		if local != nil {
			return nil, nil, fmt.Errorf("resource %s: both %s (%s) and %s (%s) match this node", r.Name, local, local.Pos, h, h.Pos)
		}
		local = h
	}
	if local == nil {
		return nil, nil, fmt.Errorf("resource %s: host %s: %w", r.Name, hostname, ErrNotLocal)
	}
	switch len(r.Hosts) {
	case 1:
		return local, nil, nil
	case 2:
		return local, r.other(local), nil
	}
	return local, nil, fmt.Errorf("resource %s: %d host sections, choose the peer", r.Name, len(r.Hosts))
}

// Peer finds the section, other than local, that names a host.
func (r *Resource) Peer(local *Host, name string) (*Host, error) {
	for _, h := range r.Hosts {
		if h != local && slices.Contains(h.Names, name) {
			return h, nil
		}
	}
	return nil, fmt.Errorf("resource %s: no peer %s", r.Name, name)
}

func (r *Resource) other(local *Host) *Host {
	if r.Hosts[0] == local {
		return r.Hosts[1]
	}
	return r.Hosts[0]
}

func (h *Host) matches(hostname string, addrs []netip.Addr) bool {
	switch {
	case h.StackedOn != "":
		return false
	case h.Floating:
		return slices.Contains(addrs, h.Address.IP)
	}
	return slices.Contains(h.Names, hostname)
}
