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

// runCommand measures everything and writes the report.
func runCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ExitOnError)
	out := f.String("out", "bench/out", "folder for results.json, results.md and the logs of the servers")
	program := f.String("replblk", "bin/replblk", "the program to measure")
	quick := f.Bool("quick", false, "three minutes instead of twenty-five: tmpfs only, short runs")
	only := f.String("only", "alone,mirror,resync,aoe,big", "sections to measure")
	places := f.String("places", "", "places to measure, of tmpfs and disk")
	reps := f.Int("reps", 0, "number of alternating runs")
	runtime := f.Duration("runtime", 0, "length of a run")
	tmpfs := f.String("tmpfs", "/dev/shm", "folder in memory")
	disk := f.String("disk", "", "folder on a disk (default: -out)")
	loads := f.String("jobs", "", "regular expression: only these loads")
	against := f.String("against", "", "another build of the program, measured beside this one in the section mirror")
	pair := pairOptions{}
	f.StringVar(&pair.net, "net", "", "more of the net section of the mirror")
	f.StringVar(&pair.disk, "disk-options", "", "more of the disk section of the mirror")
	mtus := f.String("mtus", "1500,9000", "MTUs of the section aoe")
	_ = f.Parse(args) // exits on error

	p := plan{Reps: 5, Runtime: 1500 * time.Millisecond, Size: 512 << 20, Places: []string{"tmpfs", "disk"}}
	depths := []int{1, 4, 16, 64}
	if *quick {
		p = plan{Reps: 2, Runtime: 400 * time.Millisecond, Size: 256 << 20, Places: []string{"tmpfs"}}
		depths = []int{1, 4, 64} // 16 is between the two that tell most
	}
	chosen, err := regexp.Compile(*loads)
	if err != nil {
		return err
	}
	p.chosen = chosen
	for _, j := range p.choose(jobs) {
		if slices.Contains(depths, j.depth) {
			p.jobs = append(p.jobs, j)
		}
	}
	for s := range strings.SplitSeq(*mtus, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		p.mtus = append(p.mtus, n)
	}
	if *places != "" {
		p.Places = strings.Split(*places, ",")
	}
	if *reps > 0 {
		p.Reps = *reps
	}
	if *runtime > 0 {
		p.Runtime = *runtime
	}
	if *disk == "" {
		*disk = *out
	}
	if err := os.MkdirAll(*out, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	scratch, err := os.MkdirTemp("", "replblk-bench") // paths of unix sockets must be short
	if err != nil {
		return err
	}
	r := &runner{
		plan: p, scratch: scratch, replblk: *program, against: *against, pair: pair, folders: map[string]string{"tmpfs": *tmpfs, "disk": *disk},
		report: &report{Machine: describe(), Plan: p},
		log: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
		},
	}
	failed := r.all(ctx, strings.Split(*only, ","))
	if err := r.report.save(*out); err != nil { // what there is, if it was interrupted
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
