package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/node"
	"github.com/replblk/replblk/node/transport"
	"github.com/replblk/replblk/replication"
	"github.com/replblk/replblk/replication/state"
	"github.com/replblk/replblk/replication/wire"
)

// section is a resource of drbd.conf with the ends that concern this node.
type section struct {
	res   *config.Resource
	local *config.Host
	peer  *config.Host // nil: there is none
	conf  string       // the drbd.conf that was read, for handlers

	common *config.Scope // options that res may have inherited
}

// findSection finds this node's end of a resource. The error is config.ErrNotLocal
// where the resource does not concern it.
func findSection(r *config.Resource, nodeName string) (*section, error) {
	local, peer, err := r.Local(nodeName, localAddrs())
	if err != nil {
		return nil, err
	}
	return &section{res: r, local: local, peer: peer}, nil
}

// localAddrs returns the addresses of this node; none if they cannot be had, and then
// no floating section matches.
func localAddrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	return addrs
}

// peerName is the host name of the peer, for people.
func (s *section) peerName() string {
	if s.peer == nil || len(s.peer.Names) == 0 {
		return "peer"
	}
	return s.peer.Names[0]
}

// nodeConfig translates a section into what package node wants.
func (s *section) nodeConfig() (node.Config, error) {
	n := &s.res.Net
	if err := s.unsupported(); err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{Core: s.coreConfig()}
	cfg.Options = transport.Options{SendBuffer: int(n.SndbufBytes), ReceiveBuffer: int(n.RcvbufBytes)}
	cfg.Handlers = s.handlers()
	cfg.Link = transport.Config{
		Local:           s.local.Address.AddrPort().String(),
		ConnectInterval: time.Duration(n.ConnectIntSeconds) * time.Second,
		PingTimeout:     tenths(n.PingTimeoutTenths),
	}
	if s.peer != nil {
		cfg.Link.Peer = s.peer.Address.AddrPort().String()
	}
	for _, h := range []*config.Host{s.local, s.peer} {
		if h != nil && h.Address.Family != config.IPv4 && h.Address.Family != config.IPv6 {
			return cfg, fmt.Errorf("%s: resource %s: address family %s is not supported", h.Pos, s.res.Name, h.Address.Family)
		}
	}
	// The user timeout that node derives from timeout and ko-count must know the
	// options too, so the TCP network is made here: the daemon counts its bytes.
	cfg.Options.UserTimeout = tenths(n.TimeoutTenths * max(n.KoCount, 1))
	return cfg, nil
}

// unsupported refuses options whose neglect the peer would run into: it would send digests
// of an algorithm that is not known here.
func (s *section) unsupported() error {
	n := &s.res.Net
	for _, o := range []struct {
		name, value string
	}{{"data-integrity-alg", n.DataIntegrityAlg}, {"verify-alg", n.VerifyAlg}, {"csums-alg", n.CsumsAlg}} {
		if o.value != "" && wire.AlgorithmOf(o.value) == 0 {
			return fmt.Errorf("%s: resource %s: %s: no digest algorithm %q here", s.res.Pos, s.res.Name, o.name, o.value)
		}
	}
	return nil
}

func tenths(n uint32) time.Duration { return time.Duration(n) * 100 * time.Millisecond }

func (s *section) coreConfig() replication.Config {
	n := &s.res.Net
	c := replication.Config{
		Name:              s.res.Name,
		Protocol:          protocols[n.Protocol],
		TimeoutTenths:     int(n.TimeoutTenths),
		PingIntSeconds:    int(n.PingIntSeconds),
		PingTimeoutTenths: int(n.PingTimeoutTenths),
		KoCount:           int(n.KoCount),
		MaxEpochSize:      int(n.MaxEpochSize),
		MaxBuffers:        int(n.MaxBuffers),
		CramHMACAlg:       n.CramHMACAlg,
		SharedSecret:      n.SharedSecret,
		TwoPrimaries:      n.AllowTwoPrimaries,
		AfterSB: [3]replication.Policy{
			policies[string(n.AfterSB0Pri.On(s.local.Names...))], policies[string(n.AfterSB1Pri)], policies[string(n.AfterSB2Pri)],
		},
		AlwaysASBP:     n.AlwaysASBP,
		OnCongestion:   congestions[n.OnCongestion],
		CongestionFill: uint64(n.CongestionFillSectors), CongestionExtents: int(n.CongestionExtents),
		RRConflict:      conflicts[n.RRConflict],
		UseRLE:          n.UseRLE,
		VerifyAlg:       n.VerifyAlg,
		CsumsAlg:        n.CsumsAlg,
		CsumsAfterCrash: n.CsumsAfterCrashOnly,
		IntegrityAlg:    n.DataIntegrityAlg,
		SuspendOnNoData: s.res.Options.OnNoDataAccessible == config.OnNoDataSuspendIO,
	}
	for _, v := range s.local.Volumes {
		c.Volumes = append(c.Volumes, volumeConfig(v))
	}
	return c
}

func volumeConfig(v *config.Volume) replication.VolumeConfig {
	d := &v.DiskOptions
	return replication.VolumeConfig{
		Number:            v.Number,
		SizeSectors:       d.SizeSectors,
		OnIOError:         errorPolicies[d.OnIOError],
		DiskTimeoutTenths: d.DiskTimeoutTenths,
		Fencing:           fencings[d.Fencing],
		DiskFlushes:       d.DiskFlushes,
		MDFlushes:         d.MDFlushes,
		ALExtents:         int(d.ALExtents),
		ALUpdates:         d.ALUpdates,
		ResyncRateKiB:     d.ResyncRateKiB,
		PlanAheadTenths:   d.PlanAheadTenths,
		DelayTargetTenth:  d.DelayTargetTenths,
		FillTargetSector:  d.FillTargetSectors,
		MaxRateKiB:        d.MaxRateKiB,
		MinRateKiB:        d.MinRateKiB,

		DiscardGranularity: d.DiscardGranularityBytes,
	}
}

// The words of drbd.conf and what the core calls them. A word that is missing here
// has the core's zero value, which is DRBD's default.
var (
	protocols = map[config.Protocol]replication.Protocol{
		config.ProtocolA: replication.ProtocolA, config.ProtocolB: replication.ProtocolB, config.ProtocolC: replication.ProtocolC,
	}
	policies = map[string]replication.Policy{
		"disconnect": replication.SBDisconnect, "discard-younger-primary": replication.SBDiscardYoungerPrimary,
		"discard-older-primary": replication.SBDiscardOlderPrimary, "discard-zero-changes": replication.SBDiscardZeroChanges,
		"discard-least-changes": replication.SBDiscardLeastChanges, "discard-local": replication.SBDiscardLocal,
		"discard-remote": replication.SBDiscardRemote, "consensus": replication.SBConsensus,
		"discard-secondary": replication.SBDiscardSecondary, "call-pri-lost-after-sb": replication.SBCallHelper,
		"violently-as0p": replication.SBViolently,
	}
	conflicts = map[config.RRConflict]replication.RRConflict{
		"disconnect": replication.RRDisconnect, "call-pri-lost": replication.RRCallPriLost, "violently": replication.RRViolently,
	}
	congestions = map[config.OnCongestion]replication.OnCongestion{
		config.CongestionBlock: replication.CongestionBlock, config.CongestionPullAhead: replication.CongestionPullAhead,
		config.CongestionDisconnect: replication.CongestionDisconnect,
	}
	errorPolicies = map[config.OnIOError]replication.ErrorPolicy{
		config.PassOn: replication.OnErrorPassOn, config.Detach: replication.OnErrorDetach,
		config.CallLocalIOError: replication.OnErrorCallHandler,
	}
	fencings = map[config.Fencing]state.Fencing{
		config.FencingDontCare: state.DontCare, config.FencingResourceOnly: state.ResourceOnly,
		config.FencingResourceAndStonith: state.ResourceAndStonith,
	}
)

// fencing is the strictest policy of the volumes.
func (s *section) fencing() string {
	word := config.FencingDontCare
	for _, v := range s.local.Volumes {
		if fencings[v.DiskOptions.Fencing] > fencings[word] {
			word = v.DiskOptions.Fencing
		}
	}
	return string(word)
}

// afterSB are the after-split-brain policies.
func (s *section) afterSB() string {
	n := &s.res.Net
	return fmt.Sprintf("%s, %s, %s", n.AfterSB0Pri.On(s.local.Names...), n.AfterSB1Pri, n.AfterSB2Pri)
}

// handlers translates the handlers section, with the environment of spec 10.5.
func (s *section) handlers() node.HandlerConfig {
	h := node.HandlerConfig{Commands: make(map[string]string), VolumeEnv: make(map[uint16][]string)}
	for _, c := range s.res.Handlers {
		h.Commands[c.Name] = c.Command
	}
	var minors []string
	for _, v := range s.local.Volumes {
		minor := strconv.FormatUint(uint64(v.Minor), 10)
		minors = append(minors, minor)
		h.VolumeEnv[v.Number] = []string{"DRBD_MINOR=" + minor, "DRBD_VOLUME=" + strconv.Itoa(int(v.Number)), "DRBD_LL_DISK=" + v.Disk}
	}
	h.Env = []string{"DRBD_RESOURCE=" + s.res.Name, "DRBD_CONF=" + s.conf, "DRBD_MINOR=" + strings.Join(minors, " ")}
	if s.peer != nil {
		h.Env = append(h.Env,
			"DRBD_PEER_AF="+string(s.peer.Address.Family),
			"DRBD_PEER_ADDRESS="+s.peer.Address.IP.StringExpanded(),
			"DRBD_PEER="+s.peerName(), "DRBD_PEERS="+strings.Join(s.peer.Names, " "))
	}
	return h
}

// addressWord is an address as DRBD's tools print it: ipv4:10.0.0.1:7789.
func addressWord(h *config.Host) string {
	if h == nil {
		return ""
	}
	return string(h.Address.Family) + ":" + h.Address.AddrPort().String()
}
