// Command replblk is the daemon that mirrors block devices between two nodes, and
// the tool to administer it, with the verbs of drbdadm.
//
//	replblk run                the daemon, in the foreground
//	replblk status             and other commands that ask the daemon
//	replblk create-md r0       and other commands that work on a disk not in use
//
// Exit codes are those of drbdsetup and drbdmeta, so that scripts written for them
// can judge what happened.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/mdtool"
)

// Exit codes of drbdadm, where it is not the back end that fails.
const (
	exitSyntax = 2  // the configuration cannot be read
	exitConfig = 10 // it can, and is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "replblk: "+text)
	}
	os.Exit(exitCode(err))
}

// exitCode is the exit code that an error deserves.
func exitCode(err error) int {
	var (
		refused *control.Error
		meta    *mdtool.ExitError
		wrong   config.ErrorList
		own     *exitError
	)
	switch {
	case errors.As(err, &refused):
		return refused.Exit
	case errors.As(err, &meta):
		return meta.Code
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &wrong):
		return exitConfig
	default:
		return control.ExitUsage
	}
}

// exitError is an error that knows its exit code; with an empty text it is only that.
type exitError struct {
	code int
	text string
}

// Error implements error.
func (e *exitError) Error() string { return e.text }

// globals are the options that all commands share.
type globals struct {
	confPath   string // drbd.conf; "" looks in the usual places
	daemonPath string // replblk.conf
	node       string // name of this node in drbd.conf
	socket     string // control socket; "" is the configured one
	sizeDir    string // where the sizes of disks are noted
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:           "replblk",
		Short:         "Mirrored block devices, compatible with DRBD 8.4, served by NBD and AoE",
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&g.confPath, "config-file", "c", "", "drbd.conf to read (default: the first of "+fmt.Sprint(config.DefaultPaths)+")")
	f.StringVar(&g.daemonPath, "config", "", "replblk.conf to read (default "+config.DaemonPath+" if it exists)")
	f.StringVar(&g.node, "node", "", "name of this node in drbd.conf (default: $__DRBD_NODE__, or the host name)")
	f.StringVar(&g.socket, "socket", "", "control socket (default: the one of replblk.conf)")
	f.StringVar(&g.sizeDir, "size-dir", defaultSizeDir, "where it is noted how large disks are, for check-resize")
	root.AddGroup(
		&cobra.Group{ID: groupDaemon, Title: "Daemon:"},
		&cobra.Group{ID: groupAdmin, Title: "Administration (asks the daemon):"},
		&cobra.Group{ID: groupShow, Title: "State (asks the daemon):"},
		&cobra.Group{ID: groupMeta, Title: "Metadata (the disk must not be in use) and configuration:"},
	)
	root.AddCommand(runCommand(g))
	root.AddCommand(adminCommands(g)...)
	root.AddCommand(showCommands(g)...)
	root.AddCommand(waitCommands(g)...)
	root.AddCommand(metaCommands(g)...)
	root.AddCommand(configCommands(g)...)
	return root
}

// Groups of commands in the help text.
const (
	groupDaemon = "daemon"
	groupAdmin  = "admin"
	groupShow   = "show"
	groupMeta   = "meta"
)

// nodeName is the name of this node in drbd.conf.
func (g *globals) nodeName() (string, error) {
	if g.node != "" {
		return g.node, nil
	}
	if n := os.Getenv("__DRBD_NODE__"); n != "" {
		return n, nil
	}
	return os.Hostname()
}

// loadConfig reads drbd.conf.
func (g *globals) loadConfig() (*config.Config, error) {
	path := g.confPath
	if path == "" {
		var err error
		if path, err = config.DefaultPath(config.OS{}); err != nil {
			return nil, &exitError{exitSyntax, "no configuration: " + err.Error()}
		}
	}
	return config.Load(config.OS{}, path)
}

// loadDaemon reads replblk.conf.
func (g *globals) loadDaemon() (*config.Daemon, error) {
	path := g.daemonPath
	if path == "" {
		path = config.DaemonPath
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return config.DefaultDaemon(), nil
		}
	}
	return config.LoadDaemon(config.OS{}, path)
}

// client is the way to the daemon.
func (g *globals) client() (*control.Client, error) {
	if g.socket != "" {
		return &control.Client{Path: g.socket}, nil
	}
	d, err := g.loadDaemon()
	if err != nil {
		return nil, err
	}
	return &control.Client{Path: d.Control.Socket}, nil
}
