package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// configCommands makes the commands that print the configuration: as a whole, or single words
// of it as drbdadm does for scripts.
func configCommands(g *globals) []*cobra.Command {
	list := []*cobra.Command{dumpConfigCommand(g), resourcesCommand(g)}
	for _, w := range []struct {
		name string
		word func(*target) string
	}{
		{"sh-dev", func(t *target) string { return t.vol.Device }},
		{"sh-minor", func(t *target) string { return fmt.Sprint(t.vol.Minor) }},
		{"sh-ll-dev", func(t *target) string { return t.vol.Disk }},
		{"sh-md-dev", func(t *target) string { return t.vol.MetaPath() }},
		{"sh-md-idx", func(t *target) string { return t.vol.MetaDisk.Kind() }},
		{"sh-ip", func(t *target) string { return t.sec.local.Address.IP.String() }},
	} {
		c := g.metaCommand(w.name, "print one word of the configuration, for scripts", func(cmd *cobra.Command, t *target) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), w.word(t))
			return err
		})
		c.Hidden = true
		list = append(list, c)
	}
	return list
}

func dumpConfigCommand(g *globals) *cobra.Command {
	var daemonToo bool
	c := &cobra.Command{
		Use: "dump", Short: "print the configuration in its canonical form", GroupID: groupMeta, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := g.loadConfig()
			if err != nil {
				return err
			}
			for _, w := range conf.Warnings {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w.String())
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), conf.Dump()); err != nil || !daemonToo {
				return err
			}
			d, err := g.loadDaemon()
			if err != nil {
				return err
			}
			if err := d.Check(conf); err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), d.Dump())
			return err
		},
	}
	c.Flags().BoolVar(&daemonToo, "replblk-conf", false, "print and check replblk.conf too")
	return c
}

func resourcesCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "sh-resources", Short: "print the names of this node's resources", GroupID: groupMeta, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			last := ""
			err := g.eachVolume([]string{"all"}, func(t *target) error {
				if n := t.sec.res.Name; n != last {
					names, last = append(names, n), n
				}
				return nil
			})
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, " "))
			}
			return err
		},
	}
}
