package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
)

// adminVerb is a command that the daemon carries out on a resource or volume.
type adminVerb struct {
	use, short string
	volume     bool // RES/VOL is possible
	flags      func(c *cobra.Command, r *control.Request)
}

func forceFlag(text string) func(*cobra.Command, *control.Request) {
	return func(c *cobra.Command, r *control.Request) { c.Flags().BoolVar(&r.Force, "force", false, text) }
}

var adminVerbs = []adminVerb{
	{use: "up", short: "attach the disks and connect"},
	{use: "down", short: "disconnect, detach and forget", flags: forceFlag("send NBD clients away")},
	{use: "adjust", short: "take a changed drbd.conf over as far as that is possible now, and bring up what is not"},
	{use: "primary", short: "take the Primary role: the exports open", flags: func(c *cobra.Command, r *control.Request) {
		c.Flags().BoolVar(&r.Force, "force", false, "even if the data is not known to be good")
		c.Flags().BoolVar(&r.Force, "overwrite-data-of-peer", false, "the same")
	}},
	{use: "secondary", short: "give the Primary role up: the exports close", flags: forceFlag("send NBD clients away")},
	{use: "connect", short: "connect to the peer", flags: func(c *cobra.Command, r *control.Request) {
		c.Flags().BoolVar(&r.DiscardMyData, "discard-my-data", false, "after a split brain, give up what was written here")
		c.Flags().BoolVar(&r.Tentative, "tentative", false, "only look what would happen")
	}},
	{use: "disconnect", short: "disconnect from the peer", flags: forceFlag("without the peer's consent")},
	{use: "attach", short: "attach the disk", volume: true},
	{use: "detach", short: "detach the disk", volume: true, flags: forceFlag("without waiting for what is in progress")},
	{use: "invalidate", short: "give the local data up, and copy all of it from the peer", volume: true},
	{use: "invalidate-remote", short: "give the peer's data up, and copy all of it there", volume: true},
	{use: "outdate", short: "mark the local data as outdated"},
	{use: "pause-sync", short: "pause the resync", volume: true},
	{use: "resume-sync", short: "resume the resync", volume: true},
	{use: "resize", short: "use the room that the disks have, or a given size", volume: true, flags: resizeFlags},
	{use: "new-current-uuid", short: "begin a new data generation", volume: true, flags: func(c *cobra.Command, r *control.Request) {
		c.Flags().BoolVar(&r.ClearBitmap, "clear-bitmap", false, "declare the copies of a fresh pair equal without copying")
	}},
	{use: "suspend-io", short: "hold all application I/O"},
	{use: "resume-io", short: "let application I/O go on"},
}

func resizeFlags(c *cobra.Command, r *control.Request) {
	f := c.Flags()
	f.VarP((*sizeFlag)(&r.SizeSectors), "size", "", "size of the volume (units s, K, M, G); less than it has needs --force")
	f.BoolVar(&r.AssumeClean, "assume-clean", false, "do not copy the new space: it is the same on both disks")
	f.BoolVar(&r.AssumePeer, "assume-peer-has-space", false, "without a connection: the peer will have room when it returns")
	f.BoolVar(&r.Force, "force", false, "shrink, although data may be lost")
}

// sizeFlag is an option with a size in sectors.
type sizeFlag uint64

// Set implements pflag.Value.
func (s *sizeFlag) Set(text string) error {
	n, err := config.ParseSectors(text)
	*s = sizeFlag(n)
	return err
}

// String implements pflag.Value.
func (s *sizeFlag) String() string { return strconv.FormatUint(uint64(*s), 10) + "s" }

// Type implements pflag.Value.
func (s *sizeFlag) Type() string { return "size" }

// adminCommands makes the commands that change something.
func adminCommands(g *globals) []*cobra.Command {
	var list []*cobra.Command
	for _, v := range adminVerbs {
		var req control.Request
		where := "{RESOURCE|all}..."
		if v.volume {
			where = "{RESOURCE[/VOLUME]|all}..."
		}
		c := &cobra.Command{
			Use: v.use + " " + where, Short: v.short, GroupID: groupAdmin, Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				req.Command = v.use
				return g.each(cmd, args, v.volume, req)
			},
		}
		if v.flags != nil {
			v.flags(c, &req)
		}
		list = append(list, c)
	}
	return append(list, verifyCommand(g))
}

// each sends a request for every argument.
func (g *globals) each(cmd *cobra.Command, args []string, volumes bool, req control.Request) error {
	client, err := g.client()
	if err != nil {
		return err
	}
	for _, a := range args {
		name, volume, err := parseTarget(a)
		if err != nil {
			return err
		}
		if volume != nil && !volumes {
			return &exitError{control.ExitUsage, cmd.Name() + " is about whole resources: " + a + " names a volume"}
		}
		if name == "all" {
			name = ""
		}
		req.Resource, req.Volume = name, volume
		if err := client.Do(cmd.Context(), req, printLines(cmd.OutOrStdout())); err != nil {
			return err
		}
	}
	return nil
}

// printLines prints the values of an answer that are text.
func printLines(w io.Writer) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var line string
		if err := json.Unmarshal(raw, &line); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, line)
		return err
	}
}
