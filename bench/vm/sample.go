package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sampleScript prints a machine's counters, one line each.
func sampleScript(s *system) string {
	script := "echo uptime $(cat /proc/uptime); cat /proc/stat | grep -E '^(cpu|ctxt|intr) ' | cut -c1-200; echo vda $(cat /sys/block/vda/stat); echo device $(cat /sys/block/" + s.device + "/stat); " +
		"echo net $(cat /sys/class/net/eth0/statistics/tx_packets)"
	if s.process != "" {
		script += "; p=$(pidof " + s.process + "); echo process $(cut -d' ' -f14,15 /proc/$p/stat); " +
			"echo switches $(cat /proc/$p/task/*/status | grep ctxt_switches | cut -f2)"
	}
	return script
}

// counts are what one write costs in both machines.
type counts struct {
	writes float64 // in the sample
	node   [2]nodeCounts
}

// nodeCounts is the share of one machine, each per write.
type nodeCounts struct {
	cpu, process      float64 // us of processor time: all, and of replblk
	switches, own     float64 // context switches: all, and of replblk
	packets           float64 // sent
	diskWrites, flush float64 // of /dev/vda
	idle              float64 // share of the time
}

// perWrite takes two samples of both machines apart.
func perWrite(s *system, first, second string) (counts, error) {
	var c counts
	var delta [2]map[string][]float64
	for i, text := range []string{first, second} {
		before, after, ok := strings.Cut(text, "@then")
		if !ok {
			return c, fmt.Errorf("no sample of machine %s: %q", nodeNames[i], text)
		}
		delta[i] = subtract(parseSample(after), parseSample(before))
	}
	const writesDone = 4 // field of /sys/block/*/stat
	for i, d := range delta {
		if len(d["uptime"]) < 1 || len(d["cpu"]) < 8 || len(d["ctxt"]) < 1 || len(d["net"]) < 1 || len(d["vda"]) < 16 || len(d["device"]) < 5 {
			return c, fmt.Errorf("incomplete sample of machine %s: %q", nodeNames[i], []string{first, second}[i])
		}
	}
	c.writes = delta[0]["device"][writesDone]
	if c.writes < 1 {
		return c, fmt.Errorf("no write of %s within the sample", s.device)
	}
	for i, d := range delta {
		const usPerTick = 1e4
		scale := delta[0]["uptime"][0] / d["uptime"][0]
		for _, list := range d {
			for k := range list {
				list[k] *= scale
			}
		}
		cpu := d["cpu"]
		idle := cpu[3] + cpu[4]
		var all float64
		for _, v := range cpu[:8] {
			all += v
		}
		n := &c.node[i]
		n.cpu, n.idle = (all-idle)*usPerTick/c.writes, idle/all
		n.switches, n.packets = d["ctxt"][0]/c.writes, d["net"][0]/c.writes
		n.diskWrites, n.flush = d["vda"][writesDone]/c.writes, d["vda"][15]/c.writes
		for _, v := range d["process"] {
			n.process += v * usPerTick / c.writes
		}
		for _, v := range d["switches"] {
			n.own += v / c.writes
		}
	}
	return c, nil
}

// parseSample returns the numbers of each line by its first word.
func parseSample(text string) map[string][]float64 {
	m := map[string][]float64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		for _, w := range f[1:] {
			v, err := strconv.ParseFloat(w, 64)
			if err != nil {
				break
			}
			m[f[0]] = append(m[f[0]], v)
		}
	}
	// Threads come and go between two samples; only their sum can be compared.
	if s := m["switches"]; len(s) > 0 {
		var sum float64
		for _, v := range s {
			sum += v
		}
		m["switches"] = []float64{sum}
	}
	return m
}

func subtract(after, before map[string][]float64) map[string][]float64 {
	d := map[string][]float64{}
	for key, list := range after {
		d[key] = slices.Clone(list)
		for i := range d[key] {
			if i < len(before[key]) {
				d[key][i] -= before[key][i]
			}
		}
	}
	return d
}
