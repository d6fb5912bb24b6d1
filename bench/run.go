package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags of the command run.
type options struct {
	out, program, against string
	quick                 bool
	only, places, mtus    string // lists with commas
	jobs                  string // regular expression
	reps                  int
	runtime               time.Duration
	tmpfs, disk           string
	pair                  pairOptions
}

func parseOptions(args []string) (o options) {
	f := flag.NewFlagSet("run", flag.ExitOnError)
	f.StringVar(&o.out, "out", "bench/out", "folder for results.json, results.md and the logs of the servers")
	f.StringVar(&o.program, "replblk", "bin/replblk", "the program to measure")
	f.BoolVar(&o.quick, "quick", false, "three minutes instead of twenty-five: tmpfs only, short runs")
	f.StringVar(&o.only, "only", "alone,mirror,resync,aoe,big", "sections to measure")
	f.StringVar(&o.places, "places", "", "places to measure, of tmpfs and disk")
	f.IntVar(&o.reps, "reps", 0, "number of alternating runs")
	f.DurationVar(&o.runtime, "runtime", 0, "length of a run")
	f.StringVar(&o.tmpfs, "tmpfs", "/dev/shm", "folder in memory")
	f.StringVar(&o.disk, "disk", "", "folder on a disk (default: -out)")
	f.StringVar(&o.jobs, "jobs", "", "regular expression: only these loads")
	f.StringVar(&o.against, "against", "", "another build of the program, measured beside this one in the section mirror")
	f.StringVar(&o.pair.net, "net", "", "more of the net section of the mirror")
	f.StringVar(&o.pair.disk, "disk-options", "", "more of the disk section of the mirror")
	f.StringVar(&o.mtus, "mtus", "1500,9000", "MTUs of the section aoe")
	_ = f.Parse(args) // exits on error
	if o.disk == "" {
		o.disk = o.out
	}
	return o
}

// plan is what the options ask for.
func (o *options) plan() (plan, error) {
	p := plan{Reps: 5, Runtime: 1500 * time.Millisecond, Size: 512 << 20, Places: []string{"tmpfs", "disk"}}
	depths := []int{1, 4, 16, 64}
	if o.quick {
		p = plan{Reps: 2, Runtime: 400 * time.Millisecond, Size: 256 << 20, Places: []string{"tmpfs"}}
		depths = []int{1, 4, 64} // 16 is between the two that tell most
	}
	var err error
	if p.chosen, err = regexp.Compile(o.jobs); err != nil {
		return p, fmt.Errorf("-jobs: %w", err)
	}
	for _, j := range p.choose(jobs) {
		if slices.Contains(depths, j.depth) {
			p.jobs = append(p.jobs, j)
		}
	}
	for s := range strings.SplitSeq(o.mtus, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return p, fmt.Errorf("-mtus: %w", err)
		}
		p.mtus = append(p.mtus, n)
	}
	if o.places != "" {
		p.Places = strings.Split(o.places, ",")
	}
	if o.reps > 0 {
		p.Reps = o.reps
	}
	if o.runtime > 0 {
		p.Runtime = o.runtime
	}
	return p, nil
}

// runCommand measures everything and writes the report.
func runCommand(ctx context.Context, args []string) error {
	o := parseOptions(args)
	p, err := o.plan()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	scratch, err := os.MkdirTemp("", "replblk-bench") // paths of unix sockets must be short
	if err != nil {
		return err
	}
	r := &runner{
		plan: p, scratch: scratch, replblk: o.program, against: o.against, pair: o.pair, folders: map[string]string{"tmpfs": o.tmpfs, "disk": o.disk},
		report: &report{Machine: describe(), Plan: p},
		log: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
		},
	}
	failed := r.all(ctx, strings.Split(o.only, ","))
	if err := r.report.save(o.out); err != nil { // what there is, if it was interrupted
		return errors.Join(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("%w (logs in %s)", failed, scratch)
	}
	r.report.markdown(os.Stdout)
	return os.RemoveAll(scratch)
}

func (r *runner) all(ctx context.Context, only []string) error {
	for _, where := range r.Places {
		for _, s := range []struct {
			name string
			run  func() error
		}{
			{"alone", func() error { return r.nbdAlone(ctx, where, "unix") }},
			{"alone", func() error { return r.nbdAlone(ctx, where, "tcp") }},
			{"mirror", func() error { return r.mirror(ctx, where) }},
			{"resync", func() error { return r.resync(ctx, where) }},
			{"aoe", func() error { return r.aoe(ctx, where) }},
		} {
			if slices.Contains(only, s.name) {
				if err := s.run(); err != nil {
					return err
				}
			}
		}
	}
	if slices.Contains(only, "big") {
		return r.big(ctx, "disk")
	}
	return nil
}

func runQuiet(ctx context.Context, argv []string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // see fioArgs
	if err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}

// machine is where the numbers were measured.
type machine struct {
	Time     time.Time         `json:"time"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	Memory   uint64            `json:"memory_bytes"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Load     string            `json:"load_before"`
	Versions map[string]string `json:"versions"`
}

func describe() machine {
	m := machine{Time: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Go: runtime.Version(), Versions: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.Memory = si.Totalram * uint64(si.Unit)
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load = strings.TrimSpace(string(load))
	for name, argv := range map[string][]string{
		"fio": {"fio", "--version"}, "nbdkit": {"nbdkit", "--version"}, "nbd-server": {"nbd-server", "-V"},
		"qemu-nbd": {"qemu-nbd", "--version"}, "qemu-storage-daemon": {"qemu-storage-daemon", "--version"},
	} {
		b, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // constants
		line, _, _ := strings.Cut(string(b), "\n")
		m.Versions[name] = strings.TrimSpace(line)
	}
	return m
}

func (m machine) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs (%s), %.0f GiB of memory, Linux %s, %s; load before the run %s.\n",
		m.Time.Format(time.DateTime), m.CPUs, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Load)
	var names []string
	for n, v := range m.Versions {
		names = append(names, n+": "+v)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "%s.\n\n", strings.Join(names, "; "))
}
