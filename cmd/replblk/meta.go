package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
)

// target is a volume of this node that an offline command works on.
type target struct {
	sec *section
	vol *config.Volume
}

// String names the target for people.
func (t *target) String() string { return fmt.Sprintf("%s/%d", t.sec.res.Name, t.vol.Number) }

// eachVolume calls fn for the volumes that the arguments name; "all" names all of this
// node.
func (g *globals) eachVolume(args []string, fn func(*target) error) error {
	conf, err := g.loadConfig()
	if err != nil {
		return err
	}
	node, err := g.nodeName()
	if err != nil {
		return err
	}
	for _, a := range args {
		name, volume, err := parseTarget(a)
		if err != nil {
			return err
		}
		found := false
		for _, r := range conf.Resources {
			if name != "all" && r.Name != name {
				continue
			}
			found = true
			s, err := findSection(r, node)
			if name == "all" && errors.Is(err, config.ErrNotLocal) {
				continue
			}
			if err != nil {
				return &exitError{exitConfig, fmt.Sprintf("%s: %v", r.Pos, err)}
			}
			if err := s.eachVolume(volume, fn); err != nil {
				return err
			}
		}
		if !found {
			return &exitError{exitConfig, fmt.Sprintf("resource %s is not in the configuration", name)}
		}
	}
	return nil
}

func (s *section) eachVolume(number *uint16, fn func(*target) error) error {
	if number != nil && s.local.Volume(*number) == nil {
		return &exitError{exitConfig, fmt.Sprintf("%s: resource %s has no volume %d", s.res.Pos, s.res.Name, *number)}
	}
	for _, v := range s.local.Volumes {
		if number != nil && *number != v.Number {
			continue
		}
		t := &target{s, v}
		if err := fn(t); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	return nil
}

// placement is where the configuration says that a volume's metadata is.
func placement(v *config.Volume) (metadata.Placement, error) {
	p, err := metadata.ParsePlacement(v.MetaDisk.Kind())
	if err != nil {
		return p, fmt.Errorf("%s: meta-disk: %w", v.Pos, err)
	}
	return p, nil
}

// withStore opens the device with a volume's metadata for fn.
func withStore(v *config.Volume, write bool, fn func(mdtool.Store, metadata.Placement) error) error {
	p, err := placement(v)
	if err != nil {
		return err
	}
	// drbdmeta takes a regular file only with --force; here files are disks like others.
	f, err := mdtool.OpenFile(v.MetaPath(), mdtool.OpenOptions{Writable: write, AllowRegular: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(f, p), f.Close())
}

// metaCommands makes the commands that work on disks that are not in use.
func metaCommands(g *globals) []*cobra.Command {
	return []*cobra.Command{createCommand(g), dumpCommand(g), restoreCommand(g), applyCommand(g), checkResizeCommand(g), wipeCommand(g)}
}

// metaCommand makes a command with one function for every volume.
func (g *globals) metaCommand(use, short string, run func(cmd *cobra.Command, t *target) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " {RESOURCE[/VOLUME]|all}...", Short: short, GroupID: groupMeta, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.eachVolume(args, func(t *target) error { return run(cmd, t) })
		},
	}
}

func createCommand(g *globals) *cobra.Command {
	var force bool
	var peerMax uint32
	st := metadata.DefaultStriping
	stripeKiB := st.StripeSize4K * 4
	stripes := st.Stripes
	c := g.metaCommand("create-md", "make metadata, after asking if there is data", func(cmd *cobra.Command, t *target) error {
		return withStore(t.vol, true, func(s mdtool.Store, p metadata.Placement) error {
			size, err := dataSectors(t.vol, p)
			if err != nil {
				return err
			}
			st.Stripes, st.StripeSize4K = stripes, stripeKiB/4
			_, err = mdtool.Create(s, p, mdtool.CreateOptions{
				Ask: ask(cmd, force), Striping: st, PeerMaxBIOBytes: peerMax, DeviceUUID: rand.Uint64(), DataSectors: size, Out: cmd.OutOrStdout(),
			})
			return err
		})
	})
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	c.Flags().Uint32Var(&peerMax, "peer-max-bio-size", 1<<20, "largest request in bytes that the peer takes")
	c.Flags().Uint32Var(&stripes, "al-stripes", stripes, "stripes of the activity log")
	c.Flags().Uint32Var(&stripeKiB, "al-stripe-size-kB", stripeKiB, "size of a stripe in KiB")
	return c
}

// dataSectors is the size of the data device if the metadata is on another one.
func dataSectors(v *config.Volume, p metadata.Placement) (uint64, error) {
	if p.IsInternal() {
		return 0, nil
	}
	f, err := mdtool.OpenFile(v.Disk, mdtool.OpenOptions{AllowRegular: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	return uint64(f.Size()) / 512, nil
}

// ask makes the way to ask the operator, who must be at a terminal.
func ask(cmd *cobra.Command, force bool) mdtool.Ask {
	return mdtool.Ask{Force: force, Confirm: func(question string) bool {
		w := cmd.ErrOrStderr()
		if !isTerminal(cmd.InOrStdin()) {
			_, _ = fmt.Fprintf(w, "%s\nstdin is no terminal: use --force, or answer at one\n", question)
			return false
		}
		_, _ = fmt.Fprintf(w, "%s\n[need to type 'yes' to confirm] ", question)
		answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		return err == nil && strings.TrimSpace(answer) == "yes"
	}}
}

func dumpCommand(g *globals) *cobra.Command {
	var force bool
	c := g.metaCommand("dump-md", "print the metadata", func(cmd *cobra.Command, t *target) error {
		return withStore(t.vol, false, func(s mdtool.Store, p metadata.Placement) error {
			now := time.Now()
			host, _ := os.Hostname()
			return mdtool.Dump(s, p, cmd.OutOrStdout(), mdtool.DumpOptions{Force: force, Preamble: []string{
				"DRBD meta data dump",
				fmt.Sprintf("%s [%d]", now.Format("2006-01-02 15:04:05 -0700"), now.Unix()),
				fmt.Sprintf("%s> drbdmeta %d v08 %s %s dump-md", host, t.vol.Minor, t.vol.MetaPath(), p),
				"",
			}})
		})
	})
	c.Flags().BoolVar(&force, "force", false, "even if the activity log was not applied")
	return c
}

func restoreCommand(g *globals) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "restore-md FILE RESOURCE[/VOLUME]", Short: "make metadata from a dump", GroupID: groupMeta, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = text.Close() }()
			return g.eachVolume(args[1:], func(t *target) error {
				if _, err := text.Seek(0, io.SeekStart); err != nil {
					return err
				}
				return withStore(t.vol, true, func(s mdtool.Store, p metadata.Placement) error {
					size, err := dataSectors(t.vol, p)
					if err != nil {
						return err
					}
					r, err := mdtool.Restore(s, p, text, mdtool.RestoreOptions{Ask: ask(cmd, force), DataSectors: size, Out: cmd.OutOrStdout()})
					if err == nil && (r.SizeCut || r.BitmapCut) {
						_, err = fmt.Fprintln(cmd.ErrOrStderr(), "the dump is of a larger device: what did not fit was left out")
					}
					return err
				})
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	return c
}

func applyCommand(g *globals) *cobra.Command {
	return g.metaCommand("apply-al", "replay the activity log into the bitmap", func(cmd *cobra.Command, t *target) error {
		return withStore(t.vol, true, func(s mdtool.Store, p metadata.Placement) error {
			r, err := mdtool.ApplyAL(s, p, mdtool.ApplyOptions{})
			if err != nil {
				return err
			}
			switch {
			case r.Everything:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "the activity log is not complete: marked everything as out of sync")
			case r.Extents > 0:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "Marked additional %d MB as out-of-sync based on AL.\n", r.Extents*4)
			}
			return err
		})
	})
}

func wipeCommand(g *globals) *cobra.Command {
	var force bool
	c := g.metaCommand("wipe-md", "destroy the metadata", func(cmd *cobra.Command, t *target) error {
		return withStore(t.vol, true, func(s mdtool.Store, p metadata.Placement) error {
			return mdtool.Wipe(s, p, ask(cmd, force))
		})
	})
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	return c
}
