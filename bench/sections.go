package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// plan is how much is measured.
type plan struct {
	Reps    int           `json:"reps"`
	Runtime time.Duration `json:"runtime"`
	Size    int64         `json:"size"`
	Places  []string      `json:"places"` // tmpfs, disk
	jobs    []job
	chosen  *regexp.Regexp // of the names of loads
	mtus    []int
}

// choose returns the loads that were asked for.
func (p *plan) choose(list []job) []job {
	return slices.DeleteFunc(slices.Clone(list), func(j job) bool { return !p.chosen.MatchString(j.Name) })
}

// runner carries a plan out.
type runner struct {
	plan
	folders map[string]string // of the places
	scratch string
	replblk string // the program
	against string // another build of it, may be empty
	pair    pairOptions
	report  *report
	log     func(format string, args ...any)
}

// within makes the folders of a section, and removes them when fn is done.
func (r *runner) within(where string, fn func(place) error) error {
	data, err := os.MkdirTemp(r.folders[where], "replblk-bench")
	if err != nil {
		return err
	}
	run, err := os.MkdirTemp(r.scratch, where)
	if err != nil {
		return err
	}
	return errors.Join(fn(place{data: data, run: run, size: r.Size, replblk: r.replblk}), os.RemoveAll(data))
}

// measure runs the jobs on all servers: each job on every server in turn, the whole
// several times, so that a slow moment of the machine hits all of them. The servers
// that are not being measured are idle. before is called at the start of each round.
func (r *runner) measure(ctx context.Context, section string, servers []*server, before func() error) error {
	for rep := range r.Reps {
		if err := before(); err != nil {
			return err
		}
		for _, j := range r.jobs {
			for i := range servers {
				s := servers[(i+rep)%len(servers)]
				got, err := runFio(ctx, j, s.uri, r.Size/2, r.Runtime)
				if err != nil {
					return err
				}
				r.report.add(section, s.name, j.Name, rep, got)
			}
			r.log("%s, run %d of %d, %s", section, rep+1, r.Reps, j.Name)
		}
	}
	return nil
}

// nbdAlone measures the NBD servers without a mirror.
func (r *runner) nbdAlone(ctx context.Context, where, network string) error {
	return r.within(where, func(p place) error {
		var servers []*server
		defer func() { stopAll(servers) }()
		for _, kind := range []struct {
			name  string
			start plainServer
		}{{"replblk", startOurs}, {"nbdkit", startNbdkit}, {"nbd-server", startNbdServer}, {"qemu-nbd", startQemuNBD}} {
			image, err := p.image(kind.name)
			if err != nil {
				return err
			}
			s, err := kind.start(ctx, p, kind.name, image, network)
			if err != nil {
				return err
			}
			servers = append(servers, s)
		}
		return r.measure(ctx, fmt.Sprintf("NBD alone, %s, %s", where, network), servers, func() error { return nil })
	})
}

func stopAll(servers []*server) {
	for _, s := range servers {
		s.stop()
	}
}

// mirror measures the mirror beside QEMU's, and our own NBD server without a mirror
// for the reads; and the floor, with every round.
func (r *runner) mirror(ctx context.Context, where string) error {
	if r.against != "" {
		return r.compare(ctx, where)
	}
	return r.within(where, func(p place) error {
		section := "mirror, " + where
		var images [3]string
		for i, name := range []string{"mirror", "quorum", "alone"} {
			var err error
			if images[i], err = p.image(name); err != nil {
				return err
			}
		}
		mirror, err := startMirror(ctx, p, ours, images[0], r.pair)
		if err != nil {
			return err
		}
		defer mirror.stop()
		quorum, err := startQuorum(ctx, p, "quorum", images[1])
		if err != nil {
			return err
		}
		defer quorum.stop()
		alone, err := startOurs(ctx, p, "replblk-alone", images[2], "unix")
		if err != nil {
			return err
		}
		defer alone.stop()
		return r.measure(ctx, section, []*server{mirror, quorum, alone}, func() error { return r.floor(ctx, p, section) })
	})
}

// compare measures the mirror of two builds of the program.
func (r *runner) compare(ctx context.Context, where string) error {
	return r.within(where, func(p place) error {
		var servers []*server
		defer func() { stopAll(servers) }()
		for name, program := range map[string]string{ours: r.replblk, "against": r.against} {
			image, err := p.image(name)
			if err != nil {
				return err
			}
			p.replblk = program
			s, err := startMirror(ctx, p, name, image, r.pair)
			if err != nil {
				return err
			}
			servers = append(servers, s)
		}
		return r.measure(ctx, "two builds, "+where, servers, func() error { return nil })
	})
}

// floor measures the raw round trips that a mirrored write consists of.
func (r *runner) floor(ctx context.Context, p place, section string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	tcp, err := freePort()
	if err != nil {
		return err
	}
	for network, addr := range map[string]string{"unix": filepath.Join(p.run, "pong.sock"), "tcp": tcp} {
		_ = os.Remove(addr) // of the round before
		pong, err := start(ctx, p.run, "pong-"+network, self, "pong", "-network", network, "-addr", addr)
		if err != nil {
			return err
		}
		mean, median, err := pingPong(network, addr, r.Runtime/2)
		pong.stop()
		if err != nil {
			return err
		}
		r.report.addFloor(section, network, mean, median)
		r.log("%s, floor %s: mean %v, median %v", section, network, mean, median)
	}
	return nil
}

// resyncSize is large enough that the tenth of a second in which a resync begins and
// ends does not count.
const resyncSize = 1 << 30

// resync measures how fast a volume is copied that the peer has missed entirely,
// beside a plain copy of as many bytes between two processes.
func (r *runner) resync(ctx context.Context, where string) error {
	return r.within(where, func(p place) error {
		p.size = resyncSize
		image, err := p.image("resync")
		if err != nil {
			return err
		}
		s, err := startMirror(ctx, p, "replblk", image, unlimited)
		if err != nil {
			return err
		}
		defer s.stop()
		from, err := p.image("copy-from")
		if err != nil {
			return err
		}
		to, err := p.image("copy-to")
		if err != nil {
			return err
		}
		for rep := range r.Reps {
			n, took, err := r.resyncOnce(ctx, s)
			if err != nil {
				return err
			}
			plain, err := r.plainOnce(ctx, p, from, to, n)
			if err != nil {
				return err
			}
			r.report.addResync("resync, "+where, rep, n, took, plain)
			r.log("resync, %s: %d MiB in %v, plain copy %v", where, n>>20, took, plain)
		}
		return nil
	})
}

// resyncOnce makes the nodes differ in every block and measures until they do not.
func (r *runner) resyncOnce(ctx context.Context, s *server) (int64, time.Duration, error) {
	if err := setConnected(ctx, s.nodes, false); err != nil {
		return 0, 0, err
	}
	st, err := s.nodes[0].snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	size := int64(st.Volumes[0].Size) &^ (1<<20 - 1) //nolint:gosec // of a file of ours
	if err := fill(ctx, s.uri, size); err != nil {
		return 0, 0, err
	}
	if err := setConnected(ctx, s.nodes, true); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	err = s.nodes[0].wait(ctx, inSync)
	return size, time.Since(began), err
}

// setConnected connects or disconnects both nodes. When it connects it returns as soon
// as the connection stands, which is before a resync has begun.
func setConnected(ctx context.Context, nodes []*daemon, on bool) error {
	cmd := "disconnect"
	if on {
		cmd = "connect"
	}
	for i := range nodes {
		if err := nodes[len(nodes)-1-i].do(ctx, control.Request{Command: cmd}); err != nil {
			return err
		}
	}
	if !on {
		return nil
	}
	return nodes[0].wait(ctx, func(r *control.Resource) bool { return r.Connection == "Connected" })
}

// fill writes the volume once from the start to the end, and flushes it: a plain copy
// reads from a file on stable storage too, and needs not make it so.
func fill(ctx context.Context, uri string, size int64) error {
	j := job{Name: "fill", rw: "write", block: 1 << 20, depth: 4}
	argv := fioArgs(j, uri, size, time.Second)
	var once []string
	for _, a := range argv {
		switch a {
		case "--time_based", "--runtime=1000ms", "--ramp_time=250ms":
		default:
			once = append(once, a)
		}
	}
	return runQuiet(ctx, append(once, "--end_fsync=1"))
}

func (r *runner) plainOnce(ctx context.Context, p place, from, to string, n int64) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	addr, err := freePort()
	if err != nil {
		return 0, err
	}
	far, err := start(ctx, p.run, "receive", self, "receive", "-file", to, "-addr", addr)
	if err != nil {
		return 0, err
	}
	defer far.stop()
	return plainCopy(from, addr, n)
}

// big measures a volume of 1 TiB that is all hole: the memory of the daemons when
// they have nothing to do, and how fast they connect.
func (r *runner) big(ctx context.Context, where string) error {
	return r.within(where, func(p place) error {
		const size = 1 << 40
		var files [2]string
		for i := range files {
			files[i] = filepath.Join(p.data, fmt.Sprintf("big%d.img", i))
			if err := os.WriteFile(files[i], nil, 0o600); err != nil {
				return err
			}
			if err := os.Truncate(files[i], size); err != nil {
				return err
			}
		}
		nodes, err := startPair(ctx, p, "big", files[0], files[1], pairOptions{})
		if err != nil {
			return err
		}
		defer stopDaemons(nodes)
		for rep := range r.Reps {
			if err := setConnected(ctx, nodes, false); err != nil {
				return err
			}
			// A node waits a second between two attempts, as the kernel does;
			// that is not what is measured.
			time.Sleep(1200 * time.Millisecond)
			began := time.Now()
			if err := setConnected(ctx, nodes, true); err != nil {
				return err
			}
			for _, n := range nodes {
				if err := n.wait(ctx, inSync); err != nil {
					return err
				}
			}
			r.report.addReconnect(rep, time.Since(began))
		}
		time.Sleep(time.Second)
		for i, n := range nodes {
			r.report.addMemory([]string{"Primary", "Secondary"}[i], n.residentKiB())
		}
		return nil
	})
}
