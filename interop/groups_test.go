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
	"TestSharedSecret":                 {1, 5},
	"TestWrongSecret":                  {1, 2},
	"TestFullSyncFromKernel":           {1, 20},
	"TestFullSyncFromReplblk":          {1, 20},
	"TestForcedByKernelWhileConnected": {1, 5},

	"TestForcedByReplblkWhileConnected": {1, 20},
	"TestIPv6":                          {1, 15},
	"TestIdle":                          {1, 13},
	"TestAdjust":                        {1, 13},
	"TestAdjustOptions":                 {1, 50},
	"TestAdjustRates":                   {1, 11},
	"TestOldVersions":                   {1, 141},
	"TestVersionsBetween":               {1, 90},

	"TestWrites":            {2, 36},
	"TestComparisonNotices": {2, 3},
	"TestFileSystem":        {2, 25},
	"TestPullAhead":         {2, 22},

	"TestOutageKernelPrimary":  {3, 15},
	"TestOutageReplblkPrimary": {3, 15},
	"TestOutageUnderLoad":      {3, 30},
	"TestBitmap":               {3, 40},
	"TestInvalidate":           {3, 66},
	"TestResyncInterrupted":    {3, 80},
	"TestVeto":                 {3, 20},
	"TestPauseSync":            {3, 8},
	"TestChecksumResync":       {3, 18},
	"TestThinResync":           {3, 20},

	"TestVerify":            {4, 73},
	"TestVerifyRange":       {4, 8},
	"TestVerifyInterrupted": {4, 15},
	"TestIntegrity":         {4, 40},

	"TestPowerLoss":            {5, 46},
	"TestKernelPrimaryDies":    {5, 25},
	"TestReplblkPrimaryDies":   {5, 20},
	"TestReplblkSecondaryDies": {5, 30},
	"TestFrozenReplblk":        {8, 30},
	"TestDaemon":               {5, 29},

	"TestSplitBrain":         {6, 23},
	"TestSplitBrainByPolicy": {6, 10},
	"TestAfterSplitBrain":    {6, 30},
	"TestRRConflict":         {6, 5},
	"TestUUIDRules":          {6, 30},
	"TestGeneratedUUIDs":     {6, 200},

	"TestDualPrimary": {7, 12},

	"TestVolumes":              {2, 60},
	"TestDisconnect":           {8, 10},
	"TestDisconnectPrimary":    {8, 10},
	"TestPromotionRefused":     {8, 3},
	"TestPromotionRace":        {8, 10},
	"TestFencedDisconnect":     {8, 20},
	"TestKernelFences":         {8, 15},
	"TestReplblkDiskFails":     {8, 40},
	"TestKernelDiskFails":      {8, 20},
	"TestNoSpace":              {8, 25},
	"TestDetachUnderLoad":      {8, 30},
	"TestNoData":               {8, 20},
	"TestFencePeer":            {8, 10},
	"TestOutdatedReplblk":      {8, 10},
	"TestDetach":               {8, 23},
	"TestDetachReplblkPrimary": {8, 12},
	"TestFailingKernelDisk":    {8, 25},
	"TestResize":               {8, 30},
	"TestResizeOneByOne":       {8, 20},
	"TestResizeAssumeClean":    {8, 10},
	"TestShrink":               {8, 10},
	"TestGrownWhileDown":       {8, 20},
	"TestFrozenKernel":         {8, 22},

	"TestSwap":                   {9, 90},
	"TestPlacement":              {9, 20},
	"TestTakeover":               {9, 19},
	"TestTakeoverCrashed":        {9, 10},
	"TestTakeoverCrashedReplblk": {9, 10},
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
