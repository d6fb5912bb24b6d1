package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/control"
)

const (
	pollInterval = 100 * time.Millisecond
	// lineInterval is how often progress is printed where there is no terminal.
	lineInterval = 2 * time.Second
)

// exitTimeout is what wait commands end with when the time is over.
const exitTimeout = 5

// waitCommands makes the commands that wait for a state.
func waitCommands(g *globals) []*cobra.Command {
	var connect, sync time.Duration
	c := &cobra.Command{
		Use: "wait-connect [RESOURCE|all]...", Short: "wait until resources are connected", GroupID: groupShow,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.wait(cmd.Context(), args, connect, func(list []control.Resource) bool {
				for i := range list {
					if list[i].Connection != "Connected" {
						return false
					}
				}
				return true
			})
		},
	}
	addTimeout(c, &connect)
	s := &cobra.Command{
		Use: "wait-sync [RESOURCE|all]...", Short: "wait until resources are in sync, and show the progress", GroupID: groupShow,
		RunE: func(cmd *cobra.Command, args []string) error {
			p := newReporter(cmd.ErrOrStderr())
			defer p.close()
			return g.wait(cmd.Context(), args, sync, func(list []control.Resource) bool {
				p.show(list)
				return inSync(list)
			})
		},
	}
	addTimeout(s, &sync)
	return []*cobra.Command{c, s}
}

func addTimeout(c *cobra.Command, d *time.Duration) {
	c.Flags().DurationVar(d, "timeout", 0, "give up after this time; 0 waits for ever")
}

// inSync says whether every copy of every volume is up to date.
func inSync(list []control.Resource) bool {
	for i := range list {
		if list[i].Connection != "Connected" {
			return false
		}
		for j := range list[i].Volumes {
			v := &list[i].Volumes[j]
			if v.State != "Connected" || v.Disk != "UpToDate" || v.PeerDisk != "UpToDate" {
				return false
			}
		}
	}
	return true
}

// wait polls until done says so. A resource that is StandAlone will not connect by
// itself, so it ends the wait.
func (g *globals) wait(ctx context.Context, args []string, timeout time.Duration, done func([]control.Resource) bool) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last []control.Resource
	for {
		err := g.show(ctx, args, func(list []control.Resource) error {
			last = list
			return nil
		})
		if err != nil && ctx.Err() == nil {
			return err
		}
		if ctx.Err() == nil && done(last) {
			return nil
		}
		for i := range last {
			if last[i].Connection == "StandAlone" && !last[i].Changing {
				return &exitError{exitTimeout, last[i].Name + " is StandAlone and will not connect by itself"}
			}
		}
		select {
		case <-ctx.Done():
			return &exitError{exitTimeout, "not yet: " + summary(last)}
		case <-tick.C:
		}
	}
}

// summary is the state of resources in one line.
func summary(list []control.Resource) string {
	s := ""
	for i := range list {
		for j := range list[i].Volumes {
			v := &list[i].Volumes[j]
			if s != "" {
				s += "; "
			}
			s += fmt.Sprintf("%s/%d cs:%s ro:%s/%s ds:%s/%s", list[i].Name, v.Number, v.State, v.Role, v.PeerRole, v.Disk, v.PeerDisk)
		}
	}
	return s
}

// reporter shows the progress of resyncs: a bar on a terminal, lines elsewhere.
type reporter struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	total uint64
	line  time.Time // when the last line was printed
}

func newReporter(w io.Writer) *reporter { return &reporter{w: w} }

// show updates the progress.
func (p *reporter) show(list []control.Resource) {
	var total, left uint64
	var rate float64
	word := "resync"
	for i := range list {
		for j := range list[i].Volumes {
			if s := list[i].Volumes[j].Resync; s != nil {
				total, left, rate = total+s.Total, left+s.Left, rate+s.Rate
				if s.Verify {
					word = "verify"
				}
			}
		}
	}
	switch {
	case total == 0:
	case isTerminal(p.w):
		p.draw(word, total, left, rate)
	case time.Since(p.line) >= lineInterval:
		p.line = time.Now()
		_, _ = fmt.Fprintf(p.w, "%s: %5.1f%% done, %d of %d KiB left, %.1f MiB/s\n",
			word, 100*float64(total-left)/float64(total), left>>10, total>>10, rate/(1<<20))
	}
}

// draw updates the bar. Rate and time left come from the daemon, which has watched the
// resync for longer than this command.
func (p *reporter) draw(word string, total, left uint64, rate float64) {
	if p.bar == nil || total != p.total {
		p.total = total
		p.bar = progressbar.NewOptions64(int64(total), progressbar.OptionSetWriter(p.w), progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionThrottle(pollInterval))
	}
	text := word
	if rate > 0 {
		text = fmt.Sprintf("%s %.1f MiB/s, %.0f s left", word, rate/(1<<20), float64(left)/rate)
	}
	p.bar.Describe(text)
	_ = p.bar.Set64(int64(total - left)) // a bar that cannot be drawn is no reason to stop waiting
}

// close finishes the bar.
func (p *reporter) close() {
	if p.bar != nil {
		_ = p.bar.Finish()
		_, _ = fmt.Fprintln(p.w)
	}
}
