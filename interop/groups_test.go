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
	"TestFreshPairSkipByKernel":        {1, 2},
	"TestFreshPairSkipByReplblk":       {1, 2},
	"TestSharedSecret":                 {1, 4},
	"TestWrongSecret":                  {1, 12},
	"TestFullSyncFromKernel":           {1, 7},
	"TestFullSyncFromReplblk":          {1, 22},
	"TestForcedByKernelWhileConnected": {1, 4},

	"TestForcedByReplblkWhileConnected": {1, 22},
	"TestIPv6":                          {1, 12},
	"TestIdle":                          {1, 12},
	"TestAdjust":                        {1, 10},
	"TestAdjustOptions":                 {1, 47},
	"TestAdjustRates":                   {1, 10},
	"TestOldVersions":                   {1, 159},
	"TestVersionsBetween":               {1, 68},

	"TestWrites":            {2, 29},
	"TestComparisonNotices": {2, 3},
	"TestFileSystem":        {2, 13},
	"TestPullAhead":         {2, 40},

	"TestCongestedDisconnect": {2, 8},

	"TestOutageKernelPrimary":  {3, 19},
	"TestOutageReplblkPrimary": {3, 16},
	"TestOutageUnderLoad":      {3, 35},
	"TestBitmap":               {3, 75},
	"TestInvalidate":           {3, 28},
	"TestResyncInterrupted":    {3, 79},
	"TestVeto":                 {3, 21},
	"TestVetoedInvalidate":     {3, 30},
	"TestResyncAfter":          {3, 24},
	"TestPauseSync":            {3, 15},
	"TestChecksumResync":       {3, 16},
	"TestThinResync":           {3, 13},

	"TestVerify":            {4, 79},
	"TestVerifyRange":       {4, 8},
	"TestVerifyInterrupted": {4, 10},
	"TestDamageOnTheWire":   {4, 10},
	"TestIntegrity":         {4, 64},

	"TestKernelMetadata":       {5, 45},
	"TestPowerLoss":            {5, 53},
	"TestKernelPrimaryDies":    {5, 22},
	"TestReplblkPrimaryDies":   {5, 20},
	"TestReplblkSecondaryDies": {5, 12},
	"TestFrozenReplblk":        {8, 14},
	"TestDaemon":               {5, 28},
	"TestKernelNBD":            {5, 35},

	"TestSplitBrain":         {6, 15},
	"TestSplitBrainByPolicy": {6, 11},
	"TestAfterSplitBrain":    {6, 44},
	"TestRRConflict":         {6, 10},
	"TestUUIDRules":          {6, 26},
	"TestUUIDVersions":       {6, 20},
	"TestGeneratedUUIDs":     {6, 183},

	"TestDualPrimary": {7, 19},

	"TestVolumes":              {2, 65},
	"TestDisconnect":           {8, 8},
	"TestDisconnectPrimary":    {8, 14},
	"TestDisconnectForced":     {8, 20},
	"TestDisconnectBoth":       {8, 10},
	"TestSuspendIO":            {8, 30},
	"TestPromotionRefused":     {8, 8},
	"TestPromotionRace":        {8, 15},
	"TestFencedDisconnect":     {8, 20},
	"TestKernelFences":         {8, 10},
	"TestReplblkDiskFails":     {8, 28},
	"TestKernelDiskFails":      {8, 14},
	"TestMetadataFails":        {8, 7},
	"TestNoSpace":              {8, 11},
	"TestDetachUnderLoad":      {8, 59},
	"TestNoData":               {8, 24},
	"TestFencePeer":            {8, 12},
	"TestOutdatedReplblk":      {8, 10},
	"TestDetach":               {8, 19},
	"TestDetachReplblkPrimary": {8, 7},
	"TestResize":               {8, 46},
	"TestResizeOneByOne":       {8, 8},
	"TestFailingKernelDisk":    {8, 26},
	"TestResizeAssumeClean":    {8, 8},
	"TestShrink":               {8, 4},
	"TestGrownWhileDown":       {8, 18},
	"TestFrozenKernel":         {8, 22},

	"TestSwap":                   {9, 77},
	"TestPlacement":              {9, 18},
	"TestTakeover":               {9, 21},
	"TestTakeoverCrashed":        {9, 24},
	"TestTakeoverCrashedReplblk": {9, 5},
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
