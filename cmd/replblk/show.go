package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
)

// watchInterval is how often status --watch looks.
const watchInterval = time.Second

// showCommands makes the commands that only look.
func showCommands(g *globals) []*cobra.Command {
	list := []*cobra.Command{
		statusCommand(g),
		g.showCommand("explain", "say in plain words what state a resource is in, why, and what to do", writeExplanation),
		g.showCommand("role", "print the roles of both nodes", writeRoles),
		g.showCommand("cstate", "print the connection state of every volume", writeConns),
		g.showCommand("dstate", "print the disk states of both nodes, for every volume", writeDisks),
		g.showCommand("sh-status", "print the state as shell variables", writeShStatus),
		eventsCommand(g),
		{
			Use: "proc", Short: "print what DRBD 8.4 shows in /proc/drbd", GroupID: groupShow, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return g.show(cmd.Context(), nil, func(r []control.Resource) error {
					writeProc(cmd.OutOrStdout(), r)
					return nil
				})
			},
		},
	}
	list[5].Hidden = true
	return append(list, giCommands(g)...)
}

// show fetches the named resources, all if there are none or "all", and prints them.
func (g *globals) show(ctx context.Context, args []string, write func([]control.Resource) error) error {
	client, err := g.client()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"all"}
	}
	var list []control.Resource
	for _, a := range args {
		name, volume, err := parseTarget(a)
		if err != nil {
			return err
		}
		if name == "all" {
			name = ""
		}
		found, err := client.Snapshot(ctx, name)
		if err != nil {
			return err
		}
		for i := range found {
			if found[i].Volumes = pick(found[i].Volumes, volume); len(found[i].Volumes) == 0 {
				return control.Errorf(control.ExitConfig, "%s: Failure: (127) Device minor not allocated: the resource has no such volume", a)
			}
		}
		list = append(list, found...)
	}
	return write(list)
}

func pick(list []control.Volume, number *uint16) []control.Volume {
	if number == nil {
		return list
	}
	for i := range list {
		if list[i].Number == *number {
			return list[i : i+1]
		}
	}
	return nil
}

// showCommand makes a command that prints every resource by itself.
func (g *globals) showCommand(use, short string, write func(io.Writer, *control.Resource)) *cobra.Command {
	return &cobra.Command{
		Use: use + " [RESOURCE[/VOLUME]|all]...", Short: short, GroupID: groupShow,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.show(cmd.Context(), args, func(list []control.Resource) error {
				for i := range list {
					write(cmd.OutOrStdout(), &list[i])
				}
				return nil
			})
		},
	}
}

func statusCommand(g *globals) *cobra.Command {
	var asJSON, verbose, watch bool
	c := &cobra.Command{
		Use: "status [RESOURCE|all]...", Short: "print the state of resources", GroupID: groupShow,
		RunE: func(cmd *cobra.Command, args []string) error {
			once := func(w io.Writer) error {
				return g.show(cmd.Context(), args, func(list []control.Resource) error {
					if len(args) > 0 && !list[0].Up {
						return control.Errorf(control.ExitConfig, "%s: No such resource: it is down", list[0].Name)
					}
					if asJSON {
						return writeJSON(w, list)
					}
					writeStatus(w, list, verbose)
					return nil
				})
			}
			if !watch {
				return once(cmd.OutOrStdout())
			}
			return watchStatus(cmd.Context(), cmd.OutOrStdout(), once)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON, in the form of DRBD 9")
	c.Flags().BoolVar(&verbose, "verbose", false, "everything, with counters")
	c.Flags().BoolVar(&verbose, "statistics", false, "the same")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "again every second, until interrupted")
	return c
}

// watchStatus prints the state again and again, in place on a terminal.
func watchStatus(ctx context.Context, w io.Writer, once func(io.Writer) error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		var text bytes.Buffer
		if isTerminal(w) {
			text.WriteString("\x1b[H\x1b[2J")
		}
		if err := once(&text); err != nil {
			return err
		}
		if _, err := w.Write(text.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

func eventsCommand(g *globals) *cobra.Command {
	req := control.Request{Command: "events"}
	var stamps bool
	c := &cobra.Command{
		Use: "events [RESOURCE|all]", Aliases: []string{"events2"}, Short: "print changes as they happen, as drbdsetup events2 does",
		GroupID: groupShow, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := g.client()
			if err != nil {
				return err
			}
			if len(args) > 0 && args[0] != "all" {
				req.Resource = args[0]
			}
			err = client.Do(cmd.Context(), req, func(raw json.RawMessage) error {
				var line string
				if err := json.Unmarshal(raw, &line); err != nil {
					return err
				}
				if !stamps && len(line) > len(eventTime) {
					line = line[len(eventTime)+1:]
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
				return err
			})
			if cmd.Context().Err() != nil {
				return nil //nolint:nilerr // interrupted, as it is meant to be
			}
			return err
		},
	}
	c.Flags().BoolVar(&stamps, "timestamps", false, "with the time of every line")
	c.Flags().BoolVar(&req.Statistics, "statistics", false, "with counters")
	c.Flags().BoolVar(&req.Now, "now", false, "print what is, and end")
	return c
}

// giCommands print the generation identifiers, of an attached disk from the daemon, of
// others from the disk.
func giCommands(g *globals) []*cobra.Command {
	run := func(write func(io.Writer, string)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			return g.eachVolume(args, func(t *target) error {
				gi, err := g.gi(cmd.Context(), t)
				if err == nil {
					write(cmd.OutOrStdout(), gi)
				}
				return err
			})
		}
	}
	return []*cobra.Command{
		{
			Use: "get-gi RESOURCE[/VOLUME]...", Short: "print the generation identifiers", GroupID: groupShow, Args: cobra.MinimumNArgs(1),
			RunE: run(func(w io.Writer, gi string) { _, _ = fmt.Fprintln(w, gi) }),
		},
		{
			Use: "show-gi RESOURCE[/VOLUME]...", Short: "explain the generation identifiers", GroupID: groupShow, Args: cobra.MinimumNArgs(1),
			RunE: run(writeGI),
		},
	}
}

func (g *globals) gi(ctx context.Context, t *target) (string, error) {
	if client, err := g.client(); err == nil {
		if list, err := client.Snapshot(ctx, t.sec.res.Name); err == nil && len(list) == 1 {
			for i := range list[0].Volumes {
				v := &list[0].Volumes[i]
				if v.Number == t.vol.Number && v.Disk != "Diskless" {
					return onlineGI(&list[0], v), nil
				}
			}
		}
	}
	var gi string
	err := withStore(t.vol, false, func(s mdtool.Store, p metadata.Placement) (err error) {
		gi, err = mdtool.GetGI(s, p)
		return err
	})
	return gi, err
}
