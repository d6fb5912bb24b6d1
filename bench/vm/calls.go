package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// trace counts system calls of a program by their number with the kernel's own histogram.
const (
	traceOn  = "cd /sys/kernel/tracing/events/raw_syscalls/sys_enter && echo 'hist:keys=id.syscall if comm==\"%s\"' >trigger"
	traceOff = "cd /sys/kernel/tracing/events/raw_syscalls/sys_enter && cat hist && echo '!hist:keys=id.syscall if comm==\"%s\"' >trigger"
)

var histLine = regexp.MustCompile(`id: sys_(\w+) .*hitcount: +(\d+)`)

// calls counts the system calls of a write, in runs of their own because counting
// slows them down.
func (b *bench) calls(s *system) error {
	if s.process == "" {
		return nil
	}
	for _, depth := range b.depths {
		if err := b.both(fmt.Sprintf(traceOn, s.process)); err != nil {
			return err
		}
		out, err := b.nodes[0].run("awk '{print $5}' /sys/block/" + s.device + "/stat\n" + load(s.device, depth, 4*time.Second) + "\nawk '{print $5}' /sys/block/" + s.device + "/stat")
		if err != nil {
			return err
		}
		var before, after float64
		if _, err := fmt.Sscan(out, &before, &after); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		for i, m := range b.nodes {
			hist, err := m.run(fmt.Sprintf(traceOff, s.process))
			if err != nil {
				return err
			}
			b.report.addCalls(fmt.Sprintf("depth %d, node %s", depth, nodeNames[i]), parseHist(hist, after-before))
		}
	}
	return nil
}

// parseHist returns how often each call was made per write.
func parseHist(text string, writes float64) map[string]float64 {
	calls := map[string]float64{}
	for line := range strings.Lines(text) {
		if f := histLine.FindStringSubmatch(line); f != nil {
			n, err := strconv.ParseFloat(f[2], 64)
			if err == nil && n/writes >= 0.01 {
				calls[f[1]] = n / writes
			}
		}
	}
	return calls
}
