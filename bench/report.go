package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/replblk/replblk/internal/stats"
)

// report collects what was measured. Its JSON keeps every single run.
type report struct {
	Machine   machine         `json:"machine"`
	Plan      plan            `json:"plan"`
	Runs      []run           `json:"runs"`
	Floors    []floorRun      `json:"floors"`
	Resyncs   []resyncRun     `json:"resyncs"`
	Reconnect []time.Duration `json:"reconnect_1tib"`
	MemoryKiB map[string]int  `json:"memory_1tib_kib"`
}

type run struct {
	Section, Server, Job string
	Rep                  int
	sample
}

type floorRun struct {
	Section, Network string
	Mean, Median     time.Duration
}

type resyncRun struct {
	Section string
	Rep     int
	Bytes   int64
	Took    time.Duration
	Plain   time.Duration
}

func (r *report) add(section, server, job string, rep int, s sample) {
	r.Runs = append(r.Runs, run{section, server, job, rep, s})
}

func (r *report) addFloor(section, network string, mean, median time.Duration) {
	r.Floors = append(r.Floors, floorRun{section, network, mean, median})
}

func (r *report) addResync(section string, rep int, n int64, took, plain time.Duration) {
	r.Resyncs = append(r.Resyncs, resyncRun{section, rep, n, took, plain})
}

func (r *report) addReconnect(_ int, d time.Duration) { r.Reconnect = append(r.Reconnect, d) }

func (r *report) addMemory(role string, kib int) {
	if r.MemoryKiB == nil {
		r.MemoryKiB = make(map[string]int)
	}
	r.MemoryKiB[role] = kib
}

// save writes results.json and results.md into dir.
func (r *report) save(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), b, 0o644); err != nil { //nolint:gosec // for everybody
		return err
	}
	f, err := os.Create(filepath.Join(dir, "results.md"))
	if err != nil {
		return err
	}
	defer f.Close()
	r.markdown(f)
	return f.Sync()
}

// values returns what a server reached in a job, by repetition.
func (r *report) values(section, server, job string) (v []sample) {
	for _, x := range r.Runs {
		if x.Section == section && x.Server == server && x.Job == job {
			v = append(v, x.sample)
		}
	}
	return v
}

// ratio is the median over the repetitions of ours divided by the peer's: two
// numbers of the same repetition were measured within seconds of each other.
func (r *report) ratio(section, ours, peer, job string) (float64, bool) {
	a, b := r.values(section, ours, job), r.values(section, peer, job)
	n := min(len(a), len(b))
	if n == 0 {
		return 0, false
	}
	q := make([]float64, n)
	for i := range q {
		q[i] = a[i].IOPS / b[i].IOPS
	}
	return stats.Median(q), true
}

func (r *report) medianIOPS(section, server, job string) (float64, bool) {
	v := r.values(section, server, job)
	if len(v) == 0 {
		return 0, false
	}
	q := make([]float64, len(v))
	for i := range q {
		q[i] = v[i].IOPS
	}
	return stats.Median(q), true
}

// sections returns the names of the sections of r in the order measured.
func (r *report) sections() (names []string) {
	for _, x := range r.Runs {
		if !slices.Contains(names, x.Section) {
			names = append(names, x.Section)
		}
	}
	return names
}

func (r *report) servers(section string) (names []string) {
	for _, x := range r.Runs {
		if x.Section == section && !slices.Contains(names, x.Server) {
			names = append(names, x.Server)
		}
	}
	slices.Sort(names)
	i := slices.Index(names, ours)
	return append([]string{ours}, slices.Delete(names, i, i+1)...)
}

// rate writes operations per second as a person reads them.
func rate(j job, iops float64) string {
	if j.block >= 1<<20 {
		return fmt.Sprintf("%.0f MB/s", iops*float64(j.block)/1e6)
	}
	if iops < 1000 {
		return fmt.Sprintf("%.0f", iops)
	}
	return fmt.Sprintf("%.1fk", iops/1000)
}

func verdict(got, want float64) string {
	switch {
	case want == 0 || math.IsNaN(got):
		return ""
	case got >= want:
		return "reached"
	default:
		return "missed"
	}
}

func (r *report) markdown(w io.Writer) {
	r.Machine.markdown(w)
	fmt.Fprintf(w, "Each number is the median of %d runs of %v; each ratio is the median of the ratios of the single runs (ours divided by the peer's). Files of %d MiB.\n\n",
		r.Plan.Reps, r.Plan.Runtime, r.Plan.Size>>20)
	for _, s := range r.sections() {
		r.sectionTable(w, s)
	}
	r.floorTable(w)
	r.resyncTable(w)
	r.bigTable(w)
}

func (r *report) sectionTable(w io.Writer, section string) {
	servers := r.servers(section)
	fmt.Fprintf(w, "### %s\n\n| load | %s |", section, servers[0])
	for _, s := range servers[1:] {
		fmt.Fprintf(w, " %s | ratio |", s)
	}
	fmt.Fprint(w, " goal | |\n|---|---:|")
	for range servers[1:] {
		fmt.Fprint(w, "---:|---:|")
	}
	fmt.Fprint(w, "---|---|\n")
	for _, j := range slices.Concat(jobs, aoeJobs, durableJobs) {
		mine, ok := r.medianIOPS(section, ours, j.Name)
		if !ok {
			continue
		}
		fmt.Fprintf(w, "| %s | %s |", j.Name, rate(j, mine))
		text, reached := "", true
		for _, s := range servers[1:] {
			theirs, _ := r.medianIOPS(section, s, j.Name)
			q, _ := r.ratio(section, ours, s, j.Name)
			fmt.Fprintf(w, " %s | %.2f |", rate(j, theirs), q)
			if g := goal(section, s, j.Name); g > 0 {
				text += fmt.Sprintf("%s ≥ %.2g ", s, g)
				reached = reached && q >= g
			}
		}
		mark := map[bool]string{true: "reached", false: "**missed**"}[reached]
		if text == "" {
			mark = ""
		}
		fmt.Fprintf(w, " %s| %s |\n", text, mark)
	}
	fmt.Fprintln(w)
	if strings.HasPrefix(section, "AoE") {
		r.costTable(w, section, servers)
	}
}

// costTable has the latencies of the AoE targets in a section, the processor time that
// a request cost the target and the generator, and how many were sent again in all runs.
func (r *report) costTable(w io.Writer, section string, servers []string) {
	fmt.Fprint(w, "| load | server | p50 µs | p99.9 µs | CPU µs | of the load µs | sent again |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, j := range slices.Concat(aoeJobs, durableJobs) {
		for _, server := range servers {
			v := r.values(section, server, j.Name)
			if len(v) == 0 {
				continue
			}
			of := func(f func(sample) float64) float64 {
				q := make([]float64, len(v))
				for i := range v {
					q[i] = f(v[i])
				}
				return stats.Median(q)
			}
			var repeats uint64
			for _, x := range v {
				repeats += x.Repeats
			}
			fmt.Fprintf(w, "| %s | %s | %.1f | %.0f | %.2f | %.2f | %d |\n", j.Name, server,
				of(func(s sample) float64 { return s.P50 }), of(func(s sample) float64 { return s.P999 }),
				of(func(s sample) float64 { return s.CPU }), of(func(s sample) float64 { return s.LoadCPU }), repeats)
		}
	}
	fmt.Fprintln(w)
}

// floorTable compares a write at depth 1 with the round trips it consists of.
func (r *report) floorTable(w io.Writer) {
	for _, section := range r.sections() {
		sum := map[string][]float64{}
		for _, f := range r.Floors {
			if f.Section == section {
				sum[f.Network] = append(sum[f.Network], float64(f.Mean))
			}
		}
		if len(sum) < 2 {
			continue
		}
		unix, tcp := stats.Median(sum["unix"]), stats.Median(sum["tcp"])
		fmt.Fprintf(w, "Floor of \"%s\": a raw 4 KiB round trip takes %.1f µs over a unix socket and %.1f µs over TCP, together %.1f µs: at most %.1fk writes/s at depth 1.",
			section, unix/1e3, tcp/1e3, (unix+tcp)/1e3, 1e6/(unix+tcp))
		for _, s := range r.servers(section) {
			if v, ok := r.medianIOPS(section, s, "write 4k q1"); ok && s != "replblk-alone" {
				fmt.Fprintf(w, " %s reaches %.0f %% of that.", s, v*(unix+tcp)/1e9*100)
			}
		}
		fmt.Fprint(w, "\n\n")
	}
}

func (r *report) resyncTable(w io.Writer) {
	if len(r.Resyncs) == 0 {
		return
	}
	fmt.Fprint(w, "### Resync of a volume that differs everywhere, beside a plain copy over TCP\n\n| where | resync MB/s | plain copy MB/s | share | goal | |\n|---|---:|---:|---:|---|---|\n")
	for _, where := range []string{"resync, tmpfs", "resync, disk"} {
		var ours, plain, share []float64
		for _, x := range r.Resyncs {
			if x.Section == where {
				ours = append(ours, float64(x.Bytes)/x.Took.Seconds()/1e6)
				plain = append(plain, float64(x.Bytes)/x.Plain.Seconds()/1e6)
				share = append(share, x.Plain.Seconds()/x.Took.Seconds())
			}
		}
		if len(share) > 0 {
			fmt.Fprintf(w, "| %s | %.0f | %.0f | %.2f | ≥ 0.70 | %s |\n", where, stats.Median(ours), stats.Median(plain), stats.Median(share), verdict(stats.Median(share), 0.7))
		}
	}
	fmt.Fprintln(w)
}

func (r *report) bigTable(w io.Writer) {
	if len(r.Reconnect) == 0 {
		return
	}
	fmt.Fprint(w, "### A clean sparse volume of 1 TiB\n\n| what | value | goal | |\n|---|---:|---|---|\n")
	q := make([]float64, len(r.Reconnect))
	for i, d := range r.Reconnect {
		q[i] = d.Seconds()
	}
	fmt.Fprintf(w, "| reconnect, from `connect` to both nodes UpToDate | %.0f ms | < 1 s | %s |\n", stats.Median(q)*1000, verdict(1, stats.Median(q)))
	for _, role := range []string{"Primary", "Secondary"} {
		mib := float64(r.MemoryKiB[role]) / 1024
		fmt.Fprintf(w, "| resident memory, idle, %s | %.1f MiB | < 40 MiB | %s |\n", role, mib, verdict(40, mib))
	}
	fmt.Fprintln(w)
}

// ours is the name of our server in every section.
const ours = "replblk"

// goal is the ratio asked for, 0 if none is.
func goal(section, peer, job string) float64 {
	if peer == "vblade" {
		return aoeGoal(job)
	}
	alone := section[:3] == "NBD"
	depth1 := job == "write 4k q1" || job == "read 4k q1"
	switch {
	case alone && peer == "nbdkit" && depth1:
		return 1.2
	case alone:
		return 1
	case peer == "quorum":
		return map[string]float64{"write 4k q1": 1.3, "write 4k q16": 1.8, "write 4k q64": 2.2, "write 1m seq q4": 1.2}[job]
	default:
		return 0
	}
}

// aoeGoal is the ratio to Debian's vblade asked for.
func aoeGoal(job string) float64 {
	switch {
	case strings.HasPrefix(job, "durable"):
		return 4
	case strings.HasSuffix(job, "w1"):
		return 1
	case job == "random write w64":
		return 2
	default:
		return 1.3
	}
}
