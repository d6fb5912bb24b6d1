package config

// The option tables of 11.3. Each row names its field, so that a field without
// an option, or the reverse, is visible here.

var globalSpecs = []spec[GlobalOptions]{
	choice("usage-count", func(o *GlobalOptions) *UsageCount { return &o.UsageCount }, UsageAsk, UsageYes, UsageNo),
	number("minor-count", 1, 255, '1', "32", func(o *GlobalOptions) *uint32 { return &o.MinorCount }),
	number("dialog-refresh", 0, 600, '1', "1", func(o *GlobalOptions) *uint32 { return &o.DialogRefreshSeconds }),
	bareFlag("disable-ip-verification", func(o *GlobalOptions) *bool { return &o.DisableIPVerification }),
	bareFlag("udev-always-use-vnr", func(o *GlobalOptions) *bool { return &o.UdevAlwaysUseVnr }),
	number("cmd-timeout-short", 0, 900, '1', "5", func(o *GlobalOptions) *uint32 { return &o.CmdTimeoutShortSeconds }),
	number("cmd-timeout-medium", 0, 900, '1', "600", func(o *GlobalOptions) *uint32 { return &o.CmdTimeoutMediumSeconds }),
	number("cmd-timeout-long", 0, 900, '1', "0", func(o *GlobalOptions) *uint32 { return &o.CmdTimeoutLongSeconds }),
}

func bareFlag[T any](name string, at func(*T) *bool) spec[T] {
	s := boolean(name, "no", at)
	s.Bare = true
	return s
}

var diskSpecs = []spec[DiskOptions]{
	number("size", 0, 1<<41, 's', "0", func(o *DiskOptions) *uint64 { return &o.SizeSectors }),
	choice("on-io-error", func(o *DiskOptions) *OnIOError { return &o.OnIOError }, Detach, PassOn, CallLocalIOError),
	choice("fencing", func(o *DiskOptions) *Fencing { return &o.Fencing }, FencingDontCare, FencingResourceOnly, FencingResourceAndStonith),
	number("max-bio-bvecs", 0, 128, '1', "0", func(o *DiskOptions) *uint32 { return &o.MaxBioBvecs }).ignored("concerns the kernel's block layer only"),
	boolean("disk-barrier", "no", func(o *DiskOptions) *bool { return &o.DiskBarrier }).ignored("DRBD 8.4 ignores it too"),
	boolean("disk-flushes", "yes", func(o *DiskOptions) *bool { return &o.DiskFlushes }),
	boolean("disk-drain", "yes", func(o *DiskOptions) *bool { return &o.DiskDrain }),
	boolean("md-flushes", "yes", func(o *DiskOptions) *bool { return &o.MDFlushes }),
	number("resync-rate", 1, 4194304, 'k', "250", func(o *DiskOptions) *uint32 { return &o.ResyncRateKiB }),
	text("resync-after", anyText, func(o *DiskOptions) *string { return &o.ResyncAfter }),
	clamped(number("al-extents", 67, 65534, '1', "1237", func(o *DiskOptions) *uint32 { return &o.ALExtents })),
	boolean("al-updates", "yes", func(o *DiskOptions) *bool { return &o.ALUpdates }),
	boolean("discard-zeroes-if-aligned", "yes", func(o *DiskOptions) *bool { return &o.DiscardZeroes }),
	boolean("disable-write-same", "no", func(o *DiskOptions) *bool { return &o.NoWriteSame }),
	number("c-plan-ahead", 0, 300, '1', "20", func(o *DiskOptions) *uint32 { return &o.PlanAheadTenths }),
	number("c-delay-target", 1, 100, '1', "10", func(o *DiskOptions) *uint32 { return &o.DelayTargetTenths }),
	number("c-fill-target", 0, 1048576, 's', "100", func(o *DiskOptions) *uint32 { return &o.FillTargetSectors }),
	number("c-max-rate", 250, 4194304, 'k', "102400", func(o *DiskOptions) *uint32 { return &o.MaxRateKiB }),
	number("c-min-rate", 0, 4194304, 'k', "250", func(o *DiskOptions) *uint32 { return &o.MinRateKiB }),
	number("disk-timeout", 0, 6000, '1', "0", func(o *DiskOptions) *uint32 { return &o.DiskTimeoutTenths }),
	choice("read-balancing", func(o *DiskOptions) *ReadBalancing { return &o.ReadBalancing },
		PreferLocal, PreferRemote, RoundRobin, LeastPending, WhenCongestedRemote,
		Striping32K, Striping64K, Striping128K, Striping256K, Striping512K, Striping1M),
	number("rs-discard-granularity", 0, 1048576, '1', "0", func(o *DiskOptions) *uint32 { return &o.DiscardGranularityBytes }),
}

func clamped[T any](s spec[T]) spec[T] { s.Clamp = true; return s }

var netSpecs = []spec[NetOptions]{
	choice("protocol", func(o *NetOptions) *Protocol { return &o.Protocol }, ProtocolC, ProtocolB, ProtocolA),
	number("timeout", 1, 600, '1', "60", func(o *NetOptions) *uint32 { return &o.TimeoutTenths }),
	number("max-epoch-size", 1, 20000, '1', "2048", func(o *NetOptions) *uint32 { return &o.MaxEpochSize }),
	number("max-buffers", 32, 131072, '1', "2048", func(o *NetOptions) *uint32 { return &o.MaxBuffers }),
	number("unplug-watermark", 1, 131072, '1', "128", func(o *NetOptions) *uint32 { return &o.UnplugWatermark }),
	number("connect-int", 1, 120, '1', "10", func(o *NetOptions) *uint32 { return &o.ConnectIntSeconds }),
	number("ping-int", 1, 120, '1', "10", func(o *NetOptions) *uint32 { return &o.PingIntSeconds }),
	number("ping-timeout", 1, 300, '1', "5", func(o *NetOptions) *uint32 { return &o.PingTimeoutTenths }),
	number("sndbuf-size", 0, 10485760, '1', "0", func(o *NetOptions) *uint32 { return &o.SndbufBytes }),
	number("rcvbuf-size", 0, 10485760, '1', "0", func(o *NetOptions) *uint32 { return &o.RcvbufBytes }),
	number("ko-count", 0, 200, '1', "7", func(o *NetOptions) *uint32 { return &o.KoCount }),
	boolean("allow-two-primaries", "no", func(o *NetOptions) *bool { return &o.AllowTwoPrimaries }),
	text("cram-hmac-alg", isAlgorithm, func(o *NetOptions) *string { return &o.CramHMACAlg }),
	text("shared-secret", isSecret, func(o *NetOptions) *string { return &o.SharedSecret }),
	choice("after-sb-0pri", func(o *NetOptions) *AfterSB0Pri { return &o.AfterSB0Pri },
		SB0Disconnect, SB0DiscardYoungerPrimary, SB0DiscardOlderPrimary, SB0DiscardZeroChanges,
		SB0DiscardLeastChanges, SB0DiscardLocal, SB0DiscardRemote, discardNodePrefix+"HOST"),
	choice("after-sb-1pri", func(o *NetOptions) *AfterSB1Pri { return &o.AfterSB1Pri },
		SB1Disconnect, SB1Consensus, SB1ViolentlyAS0P, SB1DiscardSecondary, SB1CallPriLostAfterSB),
	choice("after-sb-2pri", func(o *NetOptions) *AfterSB2Pri { return &o.AfterSB2Pri },
		SB2Disconnect, SB2ViolentlyAS0P, SB2CallPriLostAfterSB),
	boolean("always-asbp", "no", func(o *NetOptions) *bool { return &o.AlwaysASBP }),
	choice("rr-conflict", func(o *NetOptions) *RRConflict { return &o.RRConflict }, RRDisconnect, RRViolently, RRCallPriLost),
	text("data-integrity-alg", isAlgorithm, func(o *NetOptions) *string { return &o.DataIntegrityAlg }),
	boolean("tcp-cork", "yes", func(o *NetOptions) *bool { return &o.TCPCork }),
	choice("on-congestion", func(o *NetOptions) *OnCongestion { return &o.OnCongestion }, CongestionBlock, CongestionPullAhead, CongestionDisconnect),
	number("congestion-fill", 0, 20971520, 's', "0", func(o *NetOptions) *uint32 { return &o.CongestionFillSectors }),
	number("congestion-extents", 67, 65534, '1', "1237", func(o *NetOptions) *uint32 { return &o.CongestionExtents }),
	text("csums-alg", isAlgorithm, func(o *NetOptions) *string { return &o.CsumsAlg }),
	boolean("csums-after-crash-only", "no", func(o *NetOptions) *bool { return &o.CsumsAfterCrashOnly }),
	text("verify-alg", isAlgorithm, func(o *NetOptions) *string { return &o.VerifyAlg }),
	boolean("use-rle", "yes", func(o *NetOptions) *bool { return &o.UseRLE }),
	number("socket-check-timeout", 0, 300, '1', "0", func(o *NetOptions) *uint32 { return &o.SocketCheckTimeoutTenths }),
}

var resourceSpecs = []spec[ResourceOptions]{
	text("cpu-mask", isCPUMask, func(o *ResourceOptions) *string { return &o.CPUMask }),
	choice("on-no-data-accessible", func(o *ResourceOptions) *OnNoData { return &o.OnNoDataAccessible }, OnNoDataIOError, OnNoDataSuspendIO),
}

var startupSpecs = []spec[StartupOptions]{
	number("wfc-timeout", 0, 300000, '1', "0", func(o *StartupOptions) *uint32 { return &o.WfcTimeoutSeconds }),
	number("degr-wfc-timeout", 0, 300000, '1', "0", func(o *StartupOptions) *uint32 { return &o.DegrWfcTimeoutSeconds }),
	number("outdated-wfc-timeout", 0, 300000, '1', "0", func(o *StartupOptions) *uint32 { return &o.OutdatedWfcTimeoutSeconds }),
	boolean("wait-after-sb", "no", func(o *StartupOptions) *bool { return &o.WaitAfterSB }),
	{OptionInfo{Name: "become-primary-on", Kind: KindHosts}, func(o *StartupOptions, v value) { o.BecomePrimaryOn = v.text }},
	bareFlag("stacked-timeouts", func(o *StartupOptions) *bool { return &o.StackedTimeouts }),
}

// handlerSpecs are the events of 10.5. They all take a shell command.
var handlerSpecs = func() []spec[[]Handler] {
	names := []string{"pri-on-incon-degr", "pri-lost-after-sb", "pri-lost", "fence-peer", "unfence-peer", "local-io-error",
		"initial-split-brain", "split-brain", "before-resync-target", "after-resync-target", "before-resync-source", "out-of-sync"}
	out := make([]spec[[]Handler], len(names))
	for i, name := range names {
		out[i] = spec[[]Handler]{OptionInfo{Name: name, Kind: KindText, check: anyText}, func(h *[]Handler, v value) {
			*h = append(*h, Handler{Name: name, Command: v.text[0]})
		}}
	}
	return out
}()

var (
	globalSection   = newSection("global", globalSpecs)
	netSection      = newSection("net", netSpecs).drops(noEffect83...)
	diskSection     = newSection("disk", diskSpecs).drops(noEffect83...).alias("rate", "resync-rate").alias("after", "resync-after")
	optionsSection  = newSection("options", resourceSpecs).drops(noEffect83...)
	startupSection  = newSection("startup", startupSpecs).drops(noEffect83...).first()
	handlersSection = newSection("handlers", handlerSpecs).drops(noEffect83...).first().alias("outdate-peer", "fence-peer")
	drbdSections    = []*section{globalSection, netSection, diskSection, optionsSection, startupSection, handlersSection}
)
