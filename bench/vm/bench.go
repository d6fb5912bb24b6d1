package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// bench is a run of the whole comparison.
type bench struct {
	plan
	nodes  [2]*machine
	report report
}

func (b *bench) all(ctx context.Context) error {
	b.log("machines are up")
	if err := b.prepare(); err != nil {
		return err
	}
	for rep := range b.reps {
		for i := range systems {
			s := &systems[(i+rep)%len(systems)]
			if !slices.Contains(b.systems, s.name) {
				continue
			}
			if err := b.round(ctx, s, rep == 0); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

// round starts a system, measures it and stops it. details asks for what needs to be
// measured only once.
func (b *bench) round(ctx context.Context, s *system, details bool) error {
	if err := b.both("export HOME=/root " + b.env + "\n" + s.up); err != nil {
		return err
	}
	if err := b.both(s.wait); err != nil {
		return err
	}
	// One write into each extent of the activity log, so that no load pays for it that is too
	// slow to have met all of them before it is measured.
	warm := "fio --name=warm --filename=/dev/" + s.device + " --rw=write:4092k --bs=4k --direct=1 --eta=never --output=/dev/null"
	if _, err := b.nodes[0].run("set -e\n" + s.primary + "\n" + warm); err != nil {
		return err
	}
	b.log("%s: is up", s.name)
	err := b.alone(ctx, func() error {
		if err := b.writes(s, "pair"); err != nil {
			return err
		}
		return b.resync(s)
	})
	if err != nil {
		return err
	}
	err = b.alone(ctx, func() error {
		if details {
			if err := b.calls(s); err != nil {
				return err
			}
		}
		if _, err := b.nodes[0].run(s.disconnect); err != nil {
			return err
		}
		return b.writes(s, "one node")
	})
	if err != nil {
		return err
	}
	if _, err := b.nodes[0].run(s.connect); err != nil {
		return err
	}
	if err := b.both(s.wait); err != nil {
		return err
	}
	return b.stop(s)
}

// alone runs f while nothing else runs on this computer, if there is a way to ask for it.
func (b *bench) alone(ctx context.Context, f func() error) error {
	if len(b.exclusive) == 0 {
		return f()
	}
	//nolint:gosec // the command line of whoever started us
	hold := exec.CommandContext(ctx, b.exclusive[0], append(b.exclusive[1:], "sh", "-c", "echo; cat")...)
	in, err := hold.StdinPipe()
	if err != nil {
		return err
	}
	out, err := hold.StdoutPipe()
	if err != nil {
		return err
	}
	if err := hold.Start(); err != nil {
		return err
	}
	_, _ = out.Read(make([]byte, 1)) // it is our turn
	err = f()
	_ = in.Close()
	_, _ = io.Copy(io.Discard, out)
	_ = hold.Wait()
	return err
}

// load is a script that writes 4 KiB at random for d, and what fio says into /tmp/fio.json.
func load(device string, depth int, d time.Duration) string {
	return fmt.Sprintf("fio --name=w --filename=/dev/%s --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=%d --time_based --runtime=%.1f "+
		"--ramp_time=%.1f --norandommap --randrepeat=0 --eta=never --output-format=json --output=/tmp/fio.json", device, depth, d.Seconds()*3/4, d.Seconds()/4)
}

// sampled is a script that samples the counters twice within a load of length d: after a
// quarter of it and after three quarters. first waits until the load writes, which is when
// fio has started; the other machine only guesses, so its counts are scaled.
func sampled(s *system, d time.Duration, first bool) string {
	start := "sleep 1"
	if first {
		start = fmt.Sprintf("n=$(awk '{print $5}' /sys/block/%[1]s/stat); until [ $(awk '{print $5}' /sys/block/%[1]s/stat) -gt $n ]; do sleep 0.1; done", s.device)
	}
	one := sampleScript(s)
	return fmt.Sprintf("%s\nsleep %.1f\n%s\necho @then\nsleep %.1f\n%s\n", start, d.Seconds()/4, one, d.Seconds()/2, one)
}

// writes measures the loads.
func (b *bench) writes(s *system, what string) error {
	for _, depth := range b.depths {
		second := make(chan string, 1)
		go func() {
			out, err := b.nodes[1].run(sampled(s, b.runtime, false))
			if err != nil {
				out = ""
			}
			second <- out
		}()
		out, err := b.nodes[0].run(load(s.device, depth, b.runtime) + " &\n" + sampled(s, b.runtime, true) + "wait\necho @fio\ncat /tmp/fio.json")
		other := <-second
		if err != nil {
			return err
		}
		samples, result, _ := strings.Cut(out, "@fio")
		r, err := parseFio(result)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%s, depth %d", what, depth)
		b.report.addLoad(key, s.name, r)
		b.log("%s: %s: %.0f/s, mean %.0f us", s.name, key, r.iops, r.mean.Seconds()*1e6)
		c, err := perWrite(s, samples, other)
		if err != nil {
			return err
		}
		b.report.addCounts(key, s.name, c)
	}
	return nil
}

// resync makes the second node's whole disk differ.
func (b *bench) resync(s *system) error {
	out, err := b.nodes[1].run("set -e\n" + s.invalidate + "\ncut -d' ' -f1 /proc/uptime\n" + s.synced + "\ncut -d' ' -f1 /proc/uptime")
	if err != nil {
		return err
	}
	var began, ended float64
	if _, err := fmt.Sscan(out, &began, &ended); err != nil {
		return fmt.Errorf("%q: %w", out, err)
	}
	rate := float64(b.size) / 1e6 / (ended - began)
	b.report.addResync(s.name, rate)
	b.log("%s: resync: %.1f MB/s", s.name, rate)
	return nil
}

// loadResult is what fio says of a load.
type loadResult struct {
	iops float64
	mean time.Duration
}

func parseFio(text string) (loadResult, error) {
	var r struct {
		Jobs []struct {
			Write struct {
				IOPS float64
				Lat  struct{ Mean float64 } `json:"lat_ns"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || len(r.Jobs) != 1 {
		return loadResult{}, fmt.Errorf("fio: %w: %q", err, text)
	}
	w := r.Jobs[0].Write
	return loadResult{w.IOPS, time.Duration(w.Lat.Mean)}, nil
}

func (b *bench) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
