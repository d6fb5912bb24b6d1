package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/control"
)

// exitDiffers is what verify --wait ends with when the copies differ.
const exitDiffers = 1

// verifyOptions are the flags of verify.
type verifyOptions struct {
	start, stop          string
	wait, repair, cancel bool
}

// verifyCommand makes the command that compares the copies, shows how far it is, and
// has repaired what differs.
func verifyCommand(g *globals) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use: "verify {RESOURCE[/VOLUME]|all}...", Short: "compare the copies", GroupID: groupAdmin, Args: cobra.MinimumNArgs(1),
		Long: `Compare the copies of volumes block by block while they are in use.

Without --start it goes on where the last one was stopped. What differs is marked as out
of sync. With --repair it is copied afterwards: from the Primary, or from this node if
neither is Primary. For that the nodes disconnect for a moment.`,
		RunE: func(cmd *cobra.Command, args []string) error { return g.verify(cmd, args, &o) },
	}
	f := c.Flags()
	f.StringVar(&o.start, "start", "", "where to start, in sectors of 512 bytes; or with a suffix K, M, G or T")
	f.StringVar(&o.stop, "stop", "", "where to stop, likewise")
	f.BoolVar(&o.wait, "wait", false, fmt.Sprintf("wait for the end and show the progress; exit code %d if the copies differ", exitDiffers))
	f.BoolVar(&o.repair, "repair", false, "wait for the end, and then copy the blocks that differ")
	f.BoolVar(&o.cancel, "cancel", false, "stop a verify that was started here")
	c.MarkFlagsMutuallyExclusive("cancel", "repair")
	c.MarkFlagsMutuallyExclusive("cancel", "wait")
	return c
}

// verify carries out the command.
func (g *globals) verify(cmd *cobra.Command, args []string, o *verifyOptions) error {
	if o.cancel {
		return g.each(cmd, args, true, control.Request{Command: "stop-verify"})
	}
	req := control.Request{Command: "verify", Resume: o.start == ""}
	var err error
	if req.StartSector, err = parseSectors("start", o.start); err != nil {
		return err
	}
	if req.StopSector, err = parseSectors("stop", o.stop); err != nil {
		return err
	}
	if err := g.each(cmd, args, true, req); err != nil || !o.wait && !o.repair {
		return err
	}
	differs, err := g.awaitVerify(cmd.Context(), args, cmd.ErrOrStderr())
	if err != nil || !differs {
		return err
	}
	if !o.repair {
		return &exitError{exitDiffers, "the copies differ"}
	}
	return g.repair(cmd, args)
}

// parseSectors reads a position.
func parseSectors(name, text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	number, factor := strings.TrimSuffix(text, "s"), uint64(1)
	if i := strings.IndexByte("KMGT", text[len(text)-1]&^0x20); i >= 0 {
		number, factor = text[:len(text)-1], 2<<(10*i)
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > 1<<52/factor {
		return 0, &exitError{control.ExitUsage, fmt.Sprintf("--%s %q: want a number of sectors, or one with a suffix K, M, G or T", name, text)}
	}
	return n * factor, nil
}

// awaitVerify waits until no verify is running, prints what it has found, and says
// whether any copies differ.
func (g *globals) awaitVerify(ctx context.Context, args []string, w io.Writer) (differs bool, err error) {
	p := newReporter(w)
	var last []control.Resource
	err = g.wait(ctx, args, 0, func(list []control.Resource) bool {
		p.show(list)
		last = list
		return !verifying(list)
	})
	p.close()
	if err != nil {
		return false, err
	}
	for i := range last {
		for j := range last[i].Volumes {
			v := &last[i].Volumes[j]
			if v.Verify == nil {
				continue
			}
			differs = differs || v.Verify.OutOfSync > 0
			if _, err := fmt.Fprintln(w, verdict(last[i].Name, v)); err != nil {
				return differs, err
			}
			if v.Verify.Left > 0 {
				return differs, &exitError{control.ExitRefused, fmt.Sprintf("%s/%d: verify ended before it was complete; it goes on at sector %d when started again",
					last[i].Name, v.Number, v.Verify.Resume)}
			}
		}
	}
	return differs, nil
}

// verdict is what a verify has found, in a line.
func verdict(name string, v *control.Volume) string {
	s := fmt.Sprintf("%s/%d: %d blocks compared, %d differ", name, v.Number, (v.Verify.Total-v.Verify.Left)/bitmapBlock, v.Verify.OutOfSync/bitmapBlock)
	if v.Verify.Failed > 0 {
		s += fmt.Sprintf(", %d could not be read", v.Verify.Failed/bitmapBlock)
	}
	return s
}

func verifying(list []control.Resource) bool {
	for i := range list {
		for j := range list[i].Volumes {
			if s := list[i].Volumes[j].State; s == "VerifyS" || s == "VerifyT" {
				return true
			}
		}
	}
	return false
}

// repairTime is how long the nodes may take to disconnect and connect again, before there
// is a resync to wait for.
const repairTime = time.Minute

// repair has what differs copied and waits for it.
func (g *globals) repair(cmd *cobra.Command, args []string) error {
	names := make([]string, 0, len(args))
	for _, a := range args {
		name, _, _ := strings.Cut(a, "/") // it is about whole resources
		names = append(names, name)
	}
	if err := g.each(cmd, names, false, control.Request{Command: "repair"}); err != nil {
		return err
	}
	p := newReporter(cmd.ErrOrStderr())
	defer p.close()
	return g.wait(cmd.Context(), names, repairTime, func(list []control.Resource) bool {
		p.show(list)
		return inSync(list) && !outOfSync(list)
	})
}

func outOfSync(list []control.Resource) bool {
	for i := range list {
		for j := range list[i].Volumes {
			if list[i].Volumes[j].OutOfSync > 0 {
				return true
			}
		}
	}
	return false
}
