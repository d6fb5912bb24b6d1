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
	"TestWrongSecret":                  {1, 6},
	"TestFullSyncFromKernel":           {1, 8},
	"TestFullSyncFromReplblk":          {1, 14},
	"TestForcedByKernelWhileConnected": {1, 3},

	"TestForcedByReplblkWhileConnected": {1, 3},
	"TestIPv6":                          {1, 5},
	"TestIdle":                          {1, 6},
	"TestAdjust":                        {1, 9},
	"TestAdjustOptions":                 {1, 15},
	"TestAdjustRates":                   {1, 4},
	"TestOldVersions":                   {1, 45},
	"TestVersionsBetween":               {1, 40},

	"TestWrites":            {2, 27},
	"TestComparisonNotices": {2, 5},
	"TestCommandsArrive":    {2, 1},
	"TestFileSystem":        {2, 7},
	"TestPullAhead":         {2, 23},

	"TestCongestedDisconnect": {2, 2},

	"TestOutageKernelPrimary":  {3, 15},
	"TestOutageReplblkPrimary": {3, 10},
	"TestOutageUnderLoad":      {3, 28},
	"TestBitmap":               {3, 44},
	"TestInvalidate":           {3, 10},
	"TestResyncInterrupted":    {3, 50},
	"TestVeto":                 {3, 19},
	"TestVetoedInvalidate":     {3, 16},
	"TestResyncAfter":          {3, 14},
	"TestPauseSync":            {3, 5},
	"TestChecksumResync":       {3, 11},
	"TestThinResync":           {3, 8},

	"TestVerify":            {4, 25},
	"TestVerifyRange":       {4, 13},
	"TestVerifyInterrupted": {4, 9},
	"TestDamageOnTheWire":   {4, 4},
	"TestIntegrity":         {4, 34},

	"TestKernelMetadata":       {5, 31},
	"TestPowerLoss":            {5, 30},
	"TestKernelPrimaryDies":    {5, 9},
	"TestReplblkPrimaryDies":   {5, 9},
	"TestReplblkSecondaryDies": {5, 9},
	"TestFrozenReplblk":        {8, 9},
	"TestDaemon":               {5, 19},
	"TestKernelNBD":            {5, 18},

	"TestSplitBrain":         {6, 8},
	"TestSplitBrainByPolicy": {6, 9},
	"TestAfterSplitBrain":    {6, 29},
	"TestRRConflict":         {6, 5},
	"TestUUIDRules":          {6, 25},
	"TestUUIDVersions":       {6, 8},
	"TestGeneratedUUIDs":     {6, 60},

	"TestDualPrimary": {7, 11},

	"TestVolumes":              {2, 129},
	"TestDisconnect":           {8, 6},
	"TestDisconnectPrimary":    {8, 5},
	"TestDisconnectForced":     {8, 8},
	"TestDisconnectBoth":       {8, 7},
	"TestSuspendIO":            {8, 15},
	"TestPromotionRefused":     {8, 6},
	"TestPromotionRace":        {8, 29},
	"TestFencedDisconnect":     {8, 8},
	"TestKernelFences":         {8, 10},
	"TestReplblkDiskFails":     {8, 12},
	"TestKernelDiskFails":      {8, 4},
	"TestMetadataFails":        {8, 7},
	"TestNoSpace":              {8, 7},
	"TestDetachUnderLoad":      {8, 32},
	"TestNoData":               {8, 10},
	"TestFencePeer":            {8, 6},
	"TestOutdatedReplblk":      {8, 4},
	"TestDetach":               {8, 14},
	"TestDetachReplblkPrimary": {8, 4},
	"TestResize":               {8, 26},
	"TestResizeOneByOne":       {8, 8},
	"TestFailingKernelDisk":    {8, 13},
	"TestResizeAssumeClean":    {8, 11},
	"TestShrink":               {8, 3},
	"TestGrownWhileDown":       {8, 13},
	"TestFrozenKernel":         {8, 10},

	"TestSwap":                   {9, 71},
	"TestPlacement":              {9, 14},
	"TestTakeover":               {9, 40},
	"TestTakeoverCrashed":        {9, 20},
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
