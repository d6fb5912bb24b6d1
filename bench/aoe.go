package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
)

// debianVblade is the peer of the AoE section.
const debianVblade = "/usr/sbin/vblade"

// aoeJobs are the loads of the AoE section: frames as large as the MTU permits.
var aoeJobs = []job{
	{Name: "random read w64", rw: "randread", depth: 64},
	{Name: "random write w64", rw: "randwrite", depth: 64},
	{Name: "sequential read w64", rw: "read", depth: 64},
	{Name: "sequential write w64", rw: "write", depth: 64},
	{Name: "random read w1", rw: "randread", depth: 1},
	{Name: "random write w1", rw: "randwrite", depth: 1},
}

// durableJobs are those with -s, which acknowledges what is durable.
var durableJobs = []job{
	{Name: "durable random write w64", rw: "randwrite", depth: 64},
	{Name: "durable sequential write w64", rw: "write", depth: 64},
}

// Address of the targets.
const (
	shelf = 7
	slot  = 3
)

// blade is a running AoE target and the initiator's end of its cable.
type blade struct {
	name string
	proc *proc
	gen  *generator
	addr aoe.MAC
	ns   [2]string
}

// aoe measures our vblade beside Debian's, each on a veth pair of its own.
func (r *runner) aoe(ctx context.Context, where string) error {
	for _, mtu := range r.mtus {
		for _, mode := range []struct {
			name string
			jobs []job
			opts []string
		}{{"page cache", r.choose(aoeJobs), nil}, {"durable", r.choose(durableJobs), []string{"-s"}}} {
			if len(mode.jobs) == 0 {
				continue
			}
			section := fmt.Sprintf("AoE, %s, %s, MTU %d", mode.name, where, mtu)
			if err := r.aoeSection(ctx, where, section, mtu, mode.jobs, mode.opts); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) aoeSection(ctx context.Context, where, section string, mtu int, list []job, opts []string) error {
	return r.within(where, func(p place) error {
		// One for all: some memory is slower than other memory, on a virtual machine above all.
		image, err := p.image("aoe")
		if err != nil {
			return err
		}
		var blades []*blade
		defer func() {
			for _, b := range blades {
				b.stop()
			}
		}()
		for i, bin := range []string{filepath.Join(filepath.Dir(p.replblk), "vblade"), debianVblade} {
			b, err := startBlade(ctx, p, []string{ours, "vblade"}[i], bin, image, mtu, opts)
			if err != nil {
				return err
			}
			blades = append(blades, b)
		}
		for rep := range r.Reps {
			for _, j := range list {
				for i := range blades {
					b := blades[(i+rep)%len(blades)]
					got, err := b.measure(ctx, j, mtu, p.size, r.Runtime)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", section, b.name, err)
					}
					r.report.add(section, b.name, j.Name, rep, got)
				}
				r.log("%s, run %d of %d, %s", section, rep+1, r.Reps, j.Name)
			}
		}
		return nil
	})
}

func ipCommand(ctx context.Context, args string) error {
	return runQuiet(ctx, append([]string{"ip"}, strings.Fields(args)...))
}

func startBlade(ctx context.Context, p place, name, bin, image string, mtu int, opts []string) (*blade, error) {
	id := fmt.Sprintf("bench%d%s", os.Getpid()%100000, name[:1])
	b := &blade{name: name, ns: [2]string{id + "s", id + "c"}}
	for _, args := range []string{
		"netns add " + b.ns[0], "netns add " + b.ns[1],
		fmt.Sprintf("-n %s link add srv mtu %d type veth peer name cli netns %s mtu %d", b.ns[0], mtu, b.ns[1], mtu),
		"-n " + b.ns[0] + " link set srv up", "-n " + b.ns[1] + " link set cli up",
	} {
		if err := ipCommand(ctx, args); err != nil {
			b.stop()
			return nil, err
		}
	}
	argv := append([]string{"ip", "netns", "exec", b.ns[0], bin, "-b", "64"}, opts...)
	argv = append(argv, strconv.Itoa(shelf), strconv.Itoa(slot), "srv", image)
	var err error
	if b.proc, err = start(ctx, p.run, name, argv...); err == nil {
		err = b.discover()
	}
	if err == nil {
		b.gen, err = openGenerator(b.ns[1], "cli")
	}
	if err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *blade) stop() {
	if b.gen != nil {
		b.gen.close()
	}
	if b.proc != nil {
		b.proc.stop()
	}
	for _, ns := range b.ns {
		_ = exec.Command("ip", "netns", "del", ns).Run() //nolint:gosec // ours
	}
}

// discover asks the target for its address.
func (b *blade) discover() error {
	link, err := aoetest.OpenIn(b.ns[1], "cli")
	if err != nil {
		return err
	}
	defer func() { _ = link.Close() }()
	c := aoetest.NewClient(link, shelf, slot)
	c.Timeout = 200 * time.Millisecond
	for range 25 {
		if _, err = c.Discover(); err == nil {
			b.addr = c.Target
			return nil
		}
	}
	return fmt.Errorf("%s: %w", b.name, err)
}

// measure runs a job.
func (b *blade) measure(ctx context.Context, j job, mtu int, size int64, d time.Duration) (sample, error) {
	sectors := int(aoe.AdvertisedSectors(mtu))
	places := int(size / 512 / int64(sectors))
	next := 0
	l := load{
		target: b.addr, window: j.depth, sectors: sectors, write: !j.reads(), took: make([]time.Duration, 0, 1<<20),
		next: func() uint64 {
			if next++; strings.HasPrefix(j.rw, "rand") {
				next = rand.IntN(places) //nolint:gosec // a load
			}
			return uint64(next % places * sectors) //nolint:gosec // positive
		},
	}
	before := b.proc.cpu()
	elapsed, err := b.gen.run(ctx, &l, d)
	if err != nil {
		return sample{}, err
	}
	n := float64(len(l.took))
	slices.Sort(l.took)
	at := func(permille int) float64 { return float64(l.took[len(l.took)*permille/1000].Nanoseconds()) / 1000 }
	return sample{
		IOPS: n / elapsed.Seconds(), P50: at(500), P99: at(990), P999: at(999), Repeats: l.repeats,
		CPU: float64((b.proc.cpu() - before).Nanoseconds()) / 1000 / n, LoadCPU: float64(l.cpu.Nanoseconds()) / 1000 / n,
	}, nil
}
