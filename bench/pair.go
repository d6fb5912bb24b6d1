package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replblk/replblk/internal/control"
)

// daemon is one node of a pair: `replblk run` with a configuration of its own.
type daemon struct {
	*proc
	ctl control.Client
}

// pairOptions is what a section changes in the configuration.
type pairOptions struct {
	net, disk string // more of the sections of drbd.conf
}

// unlimited takes the brake off the resync, as the plain copy beside it has none. Of
// the max-buffers tried (8000, 32k, 128k) 128k was the slowest and 8000 as good as 32k.
var unlimited = pairOptions{net: "max-buffers 8000;", disk: "c-plan-ahead 0; resync-rate 4096M; c-min-rate 0;"}

// startPair starts two daemons on two files and brings them into sync without copying:
// both are declared equal. The first is Primary and serves at p.socket(name).
func startPair(ctx context.Context, p place, name, fileA, fileB string, o pairOptions) ([]*daemon, error) {
	var res strings.Builder
	fmt.Fprintf(&res, "resource r0 {\n device /dev/drbd7;\n meta-disk internal;\n protocol C;\n net { connect-int 1; %s }\n disk { %s }\n", o.net, o.disk)
	for node, file := range map[string]string{"a": fileA, "b": fileB} {
		addr, err := freePort()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&res, " on %s { address %s; disk %q; }\n", node, addr, file)
	}
	resPath := filepath.Join(p.run, name+".res")
	if err := os.WriteFile(resPath, []byte(res.String()+"}\n"), 0o600); err != nil {
		return nil, err
	}
	var nodes []*daemon
	for _, node := range []string{"a", "b"} {
		d, err := startDaemon(ctx, p, name, node, resPath)
		if err != nil {
			stopDaemons(nodes)
			return nil, err
		}
		nodes = append(nodes, d)
	}
	if err := equalize(ctx, nodes); err != nil {
		stopDaemons(nodes)
		return nil, err
	}
	return nodes, nil
}

func stopDaemons(nodes []*daemon) {
	for _, d := range nodes {
		d.stop()
	}
}

func startDaemon(ctx context.Context, p place, name, node, resPath string) (*daemon, error) {
	socket, base := p.socket(name), filepath.Join(p.run, name+"-"+node)
	if node != "a" {
		socket = base + ".sock" // exists, and refuses
	}
	conf := fmt.Sprintf("control { socket %q; }\nlog { level warn; }\nnbd r0 { listen \"unix:%s\"; resource r0; export-name r0; }\nresource r0 { direct-io no; }\n", base+".ctl", socket)
	if err := os.WriteFile(base+".conf", []byte(conf), 0o600); err != nil {
		return nil, err
	}
	argv := func(more ...string) []string {
		return append([]string{p.replblk, "-c", resPath, "--config", base + ".conf", "--node", node}, more...)
	}
	if err := runQuiet(ctx, argv("create-md", "--force", "r0")); err != nil {
		return nil, err
	}
	pr, err := start(ctx, p.run, name+"-"+node, argv("run")...)
	if err != nil {
		return nil, err
	}
	d := &daemon{proc: pr, ctl: control.Client{Path: base + ".ctl"}}
	if err := pr.ready("unix", base+".ctl"); err != nil {
		pr.stop()
		return nil, err
	}
	return d, nil
}

func equalize(ctx context.Context, nodes []*daemon) error {
	connected := func(r *control.Resource) bool { return r.Connection == "Connected" }
	for _, d := range nodes {
		if err := d.wait(ctx, connected); err != nil {
			return err
		}
	}
	if err := nodes[0].do(ctx, control.Request{Command: "new-current-uuid", Volume: new(uint16), ClearBitmap: true}); err != nil {
		return err
	}
	if err := nodes[0].do(ctx, control.Request{Command: "primary"}); err != nil {
		return err
	}
	for _, d := range nodes {
		if err := d.wait(ctx, inSync); err != nil {
			return err
		}
	}
	return nil
}

// do carries out a command.
func (d *daemon) do(ctx context.Context, req control.Request) error {
	req.Resource = "r0"
	if err := d.ctl.Do(ctx, req, nil); err != nil {
		return fmt.Errorf("%s: %s: %w", d.name, req.Command, err)
	}
	return nil
}

func (d *daemon) snapshot(ctx context.Context) (*control.Resource, error) {
	list, err := d.ctl.Snapshot(ctx, "r0")
	if err != nil {
		return nil, fmt.Errorf("%s: status: %w", d.name, err)
	}
	if len(list) != 1 || len(list[0].Volumes) != 1 {
		return nil, fmt.Errorf("%s: status of %d resources", d.name, len(list))
	}
	return &list[0], nil
}

func inSync(r *control.Resource) bool {
	v := &r.Volumes[0]
	return r.Connection == "Connected" && v.State == "Connected" && v.Disk == "UpToDate" && v.PeerDisk == "UpToDate"
}

// wait polls, because two milliseconds are exact enough here.
func (d *daemon) wait(ctx context.Context, cond func(*control.Resource) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		r, err := d.snapshot(ctx)
		if err != nil {
			return err
		}
		if cond(r) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: still %s %s/%s: %w", d.name, r.Volumes[0].State, r.Volumes[0].Disk, r.Volumes[0].PeerDisk, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
