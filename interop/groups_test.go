//go:build interop

package interop

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// groupNames are what the scenarios are grouped by, with the numbers that docs/interop.md
// uses. Group 0 is not about DRBD.
var groupNames = [...]string{
	"the Linux aoe driver",
	"connect, first sync, adjust",
	"writes",
	"bitmap resync",
	"verify and integrity",
	"death and recovery",
	"split brain, UUID table",
	"dual primary",
	"promotion, detach, resize, time-outs",
	"swap of implementations",
}

// scenarios says to which group each test belongs, and how many seconds it takes, which
// matters only for an even distribution over the machines.
var scenarios = map[string]struct{ group, seconds int }{
	"TestFreshPairSkipByKernel":        {1, 4},
	"TestFreshPairSkipByReplblk":       {1, 10},
	"TestSharedSecret":                 {1, 9},
	"TestWrongSecret":                  {1, 3},
	"TestFullSyncFromKernel":           {1, 16},
	"TestFullSyncFromReplblk":          {1, 34},
	"TestForcedByKernelWhileConnected": {1, 14},

	"TestForcedByReplblkWhileConnected": {1, 25},
	"TestIPv6":                          {1, 12},
	"TestIdle":                          {1, 16},
	"TestAdjust":                        {1, 17},
	"TestAdjustOptions":                 {1, 46},
	"TestAdjustRates":                   {1, 15},
	"TestOldVersions":                   {1, 203},
	"TestVersionsBetween":               {1, 90},

	"TestWrites":            {2, 68},
	"TestComparisonNotices": {2, 4},
	"TestFileSystem":        {2, 14},
	"TestPullAhead":         {2, 40},

	"TestCongestedDisconnect": {2, 15},

	"TestOutageKernelPrimary":  {3, 38},
	"TestOutageReplblkPrimary": {3, 19},
	"TestOutageUnderLoad":      {3, 41},
	"TestBitmap":               {3, 133},
	"TestInvalidate":           {3, 39},
	"TestResyncInterrupted":    {3, 108},
	"TestVeto":                 {3, 27},
	"TestVetoedInvalidate":     {3, 30},
	"TestResyncAfter":          {3, 30},
	"TestPauseSync":            {3, 13},
	"TestChecksumResync":       {3, 35},
	"TestThinResync":           {3, 18},

	"TestVerify":            {4, 114},
	"TestVerifyRange":       {4, 28},
	"TestVerifyInterrupted": {4, 19},
	"TestDamageOnTheWire":   {4, 20},
	"TestIntegrity":         {4, 72},

	"TestKernelMetadata":       {5, 40},
	"TestPowerLoss":            {5, 58},
	"TestKernelPrimaryDies":    {5, 86},
	"TestReplblkPrimaryDies":   {5, 59},
	"TestReplblkSecondaryDies": {5, 47},
	"TestFrozenReplblk":        {8, 33},
	"TestDaemon":               {5, 47},

	"TestSplitBrain":         {6, 21},
	"TestSplitBrainByPolicy": {6, 18},
	"TestAfterSplitBrain":    {6, 47},
	"TestRRConflict":         {6, 13},
	"TestUUIDRules":          {6, 36},
	"TestUUIDVersions":       {6, 12},
	"TestGeneratedUUIDs":     {6, 243},

	"TestDualPrimary": {7, 33},

	"TestVolumes":              {2, 119},
	"TestDisconnect":           {8, 9},
	"TestDisconnectPrimary":    {8, 19},
	"TestDisconnectForced":     {8, 40},
	"TestDisconnectBoth":       {8, 20},
	"TestSuspendIO":            {8, 40},
	"TestPromotionRefused":     {8, 18},
	"TestPromotionRace":        {8, 43},
	"TestFencedDisconnect":     {8, 56},
	"TestKernelFences":         {8, 15},
	"TestReplblkDiskFails":     {8, 95},
	"TestKernelDiskFails":      {8, 41},
	"TestMetadataFails":        {8, 15},
	"TestNoSpace":              {8, 35},
	"TestDetachUnderLoad":      {8, 67},
	"TestNoData":               {8, 28},
	"TestFencePeer":            {8, 14},
	"TestOutdatedReplblk":      {8, 11},
	"TestDetach":               {8, 33},
	"TestDetachReplblkPrimary": {8, 24},
	"TestResize":               {8, 52},
	"TestResizeOneByOne":       {8, 22},
	"TestFailingKernelDisk":    {8, 25},
	"TestResizeAssumeClean":    {8, 10},
	"TestShrink":               {8, 12},
	"TestGrownWhileDown":       {8, 38},
	"TestFrozenKernel":         {8, 26},

	"TestSwap":                   {9, 106},
	"TestPlacement":              {9, 25},
	"TestTakeover":               {9, 36},
	"TestTakeoverCrashed":        {9, 36},
	"TestTakeoverCrashedReplblk": {9, 28},
}

// groupOf returns the group and the expected duration of a test or a subtest.
func groupOf(name string) (group, seconds int, ok bool) {
	root, _, _ := strings.Cut(name, "/")
	s, ok := scenarios[root]
	if !ok && strings.HasPrefix(root, "TestAoE") {
		return 0, 60, true
	}
	return s.group, s.seconds, ok
}

// distribute deals the tests out to at most n machines, so that all of them end at about
// the same time. Those of one machine stay in order.
func distribute(tests []string, n int) ([][]string, error) {
	byTime := slices.Clone(tests)
	var unknown []error
	seconds := func(name string) int { _, s, _ := groupOf(name); return s }
	for _, name := range tests {
		if _, _, ok := groupOf(name); !ok {
			unknown = append(unknown, fmt.Errorf("%s is in no group of groups_test.go", name))
		}
	}
	slices.SortStableFunc(byTime, func(a, b string) int { return seconds(b) - seconds(a) })
	n = min(n, len(tests))
	machineOf, load := map[string]int{}, make([]int, n)
	for _, name := range byTime {
		m := slices.Index(load, slices.Min(load))
		machineOf[name] = m
		load[m] += seconds(name)
	}
	parts := make([][]string, n)
	for _, name := range tests {
		parts[machineOf[name]] = append(parts[machineOf[name]], name)
	}
	return parts, errors.Join(unknown...)
}
