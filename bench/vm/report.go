package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/replblk/replblk/internal/stats"
)

// report collects what was measured.
type report struct {
	keys    []string // of loads, in the order in which they were first measured
	loads   map[string]map[string][]loadResult
	resyncs map[string][]float64 // MB/s
	counts  map[[2]string]counts // by key and system, of the last round
	calls   []callCount
}

type callCount struct {
	what  string
	calls map[string]float64
}

func (r *report) addLoad(key, system string, l loadResult) {
	if r.loads == nil {
		r.loads = map[string]map[string][]loadResult{}
	}
	if r.loads[key] == nil {
		r.keys = append(r.keys, key)
		r.loads[key] = map[string][]loadResult{}
	}
	r.loads[key][system] = append(r.loads[key][system], l)
}

func (r *report) addCounts(key, system string, c counts) {
	if r.counts == nil {
		r.counts = map[[2]string]counts{}
	}
	r.counts[[2]string{key, system}] = c
}

func (r *report) addResync(system string, rate float64) {
	if r.resyncs == nil {
		r.resyncs = map[string][]float64{}
	}
	r.resyncs[system] = append(r.resyncs[system], rate)
}

func (r *report) addCalls(what string, calls map[string]float64) {
	r.calls = append(r.calls, callCount{what, calls})
}

// save writes the tables to a file and to standard output.
func (r *report) save(path string) error {
	var b bytes.Buffer
	fmt.Fprint(&b, "| 4 KiB writes | kernel /s | replblk /s | ratio | each round | kernel mean us | replblk mean us |\n|---|---:|---:|---:|---|---:|---:|\n")
	for _, key := range r.keys {
		k, o := r.loads[key]["kernel"], r.loads[key]["replblk"]
		iops := func(l []loadResult) (list []float64) {
			for _, x := range l {
				list = append(list, x.iops)
			}
			return list
		}
		mean := func(l []loadResult) (list []float64) {
			for _, x := range l {
				list = append(list, x.mean.Seconds()*1e6)
			}
			return list
		}
		ratio, each := ratios(iops(o), iops(k))
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %s | %.0f | %.0f |\n", key, stats.Median(iops(k)), stats.Median(iops(o)), ratio, each, stats.Median(mean(k)), stats.Median(mean(o)))
	}
	ratio, each := ratios(r.resyncs["replblk"], r.resyncs["kernel"])
	fmt.Fprintf(&b, "| full resync, MB/s | %.1f | %.1f | %.2f | %s | | |\n\n", stats.Median(r.resyncs["kernel"]), stats.Median(r.resyncs["replblk"]), ratio, each)
	r.costs(&b)
	for _, c := range r.calls {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(c.calls)) {
			list = append(list, fmt.Sprintf("%s %.2f", name, c.calls[name]))
		}
		fmt.Fprintf(&b, "\nSystem calls of replblk per write, %s: %s.\n", c.what, strings.Join(list, ", "))
	}
	_, _ = os.Stdout.Write(b.Bytes())
	return os.WriteFile(path, b.Bytes(), 0o644) //nolint:gosec // for everybody
}

// costs is what a write costs in each machine.
func (r *report) costs(w io.Writer) {
	fmt.Fprint(w, "| per write | node | cpu us | of replblk | switches | of replblk | packets sent | disk writes | flushes | idle |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, key := range r.keys {
		for _, s := range systems {
			c, ok := r.counts[[2]string{key, s.name}]
			if !ok {
				continue
			}
			for i, n := range c.node {
				fmt.Fprintf(w, "| %s, %s | %s | %.0f | %.0f | %.2f | %.2f | %.2f | %.2f | %.4f | %.0f %% |\n", key, s.name, nodeNames[i],
					n.cpu, n.process, n.switches, n.own, n.packets, n.diskWrites, n.flush, n.idle*100)
			}
		}
	}
}

// ratios returns the median of the ratios of each round, and all of them.
func ratios(ours, theirs []float64) (float64, string) {
	var list []float64
	var each []string
	for i := range min(len(ours), len(theirs)) {
		list = append(list, ours[i]/theirs[i])
		each = append(each, fmt.Sprintf("%.2f", ours[i]/theirs[i]))
	}
	return stats.Median(list), strings.Join(each, ", ")
}
