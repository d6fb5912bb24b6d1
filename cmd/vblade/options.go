package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/targets"
)

const usage = "usage: vblade [--metrics addr] [--state dir] [-b bufcnt] [-o offset] [-l length] [-d ] [-s] [-r] [ -m mac[,mac...] ] shelf slot netif filename\n" +
	"       vblade [--metrics addr] [--state dir] --config file"

// errUsage marks errors after which the usage is shown.
var errUsage = errors.New("wrong usage")

// firmwareVersion is what vblade 25 announces.
const firmwareVersion = 0x4000 + 25

// options are the command line.
type options struct {
	buffers  int       // -b: advertised buffer count, 0 is the default
	direct   bool      // -d: O_DIRECT
	sync     bool      // -s: acknowledge durable writes only
	readOnly bool      // -r
	mask     []aoe.MAC // -m: who may use the export; empty is everyone
	offset   uint64    // -o: first sector of the file to export
	length   *uint64   // -l: sectors to export, nil is all
	shelf    uint16
	slot     uint8
	netifs   []string
	path     string
	config   string // config string, from a file only
	state    string // file that keeps what initiators set; "" is none
}

// settings are those of the process.
type settings struct {
	metrics string // --metrics: where to serve them; "" is nowhere
	state   string // --state: folder of what initiators set; "" is none
	exports []*options
}

// arguments reads the command line.
func arguments(args []string) (s settings, err error) {
	for ; len(args) > 0; args = args[2:] {
		to := map[string]*string{"--metrics": &s.metrics, "--state": &s.state}[args[0]]
		if to == nil {
			break
		}
		if len(args) == 1 || args[1] == "" {
			return s, fmt.Errorf("option %s needs a value: %w", args[0], errUsage)
		}
		*to = args[1]
	}
	s.exports, err = exports(args)
	if err == nil && s.state != "" {
		for _, o := range s.exports {
			o.state = filepath.Join(s.state, fmt.Sprintf("e%d.%d.json", o.shelf, o.slot))
		}
	}
	return s, err
}

// exports returns what the command line asks for.
func exports(args []string) ([]*options, error) {
	if len(args) == 2 && args[0] == "--config" {
		return load(args[1])
	}
	o, err := parse(args)
	return []*options{o}, err
}

// load returns the exports of a file in replblk.conf's grammar.
func load(path string) ([]*options, error) {
	d, err := config.LoadDaemon(config.OS{}, path)
	if err != nil {
		return nil, err
	}
	var list []*options
	for _, t := range d.AoE {
		if t.File == "" {
			continue // replblk run serves it
		}
		o := &options{sync: true, readOnly: t.ReadOnly, netifs: t.Interfaces, path: t.File, config: t.ConfigString,
			shelf: uint16(t.Shelf), slot: uint8(t.Slot)} //nolint:gosec // config has checked the range
		for _, m := range t.MACs {
			if err := o.setMask(m); err != nil {
				return nil, fmt.Errorf("%s: %w", t.Pos, err)
			}
		}
		list = append(list, o)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no aoe section with a file", path)
	}
	return list, nil
}

// parse reads the command line as getopt does: letters can be joined, a value
// may be attached, and options may follow arguments until "--".
func parse(args []string) (*options, error) {
	o := &options{}
	var rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			rest = append(rest, a)
			continue
		}
		for j := 1; j < len(a); j++ {
			if !strings.ContainsRune("bolm", rune(a[j])) {
				if err := o.setSwitch(a[j]); err != nil {
					return nil, err
				}
				continue
			}
			value := a[j+1:]
			if value == "" {
				if i++; i == len(args) {
					return nil, fmt.Errorf("option requires an argument -- '%c': %w", a[j], errUsage)
				}
				value = args[i]
			}
			if err := o.setValue(a[j], value); err != nil {
				return nil, fmt.Errorf("option -%c: %w", a[j], err)
			}
			break
		}
	}
	return o, o.setArguments(rest)
}

func (o *options) setSwitch(letter byte) error {
	switch letter {
	case 'd':
		o.direct = true
	case 's':
		o.sync = true
	case 'r':
		o.readOnly = true
	default:
		return fmt.Errorf("invalid option -- '%c': %w", letter, errUsage)
	}
	return nil
}

func (o *options) setValue(letter byte, v string) error {
	if letter == 'm' {
		return o.setMask(v)
	}
	n, err := strconv.ParseUint(v, 0, 63)
	if err != nil {
		return fmt.Errorf("%q is not a number", v)
	}
	switch letter {
	case 'b':
		if n == 0 || n > 0xffff {
			return fmt.Errorf("buffer count %d is not between 1 and 65535", n)
		}
		o.buffers = int(n)
	case 'o':
		o.offset = n
	case 'l':
		o.length = &n
	}
	return nil
}

func (o *options) setMask(list string) error {
	for s := range strings.SplitSeq(list, ",") {
		m, err := aoe.ParseMAC(s)
		if err != nil {
			return err
		}
		o.mask = append(o.mask, m)
	}
	return nil
}

func (o *options) setArguments(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("need shelf, slot, interface and file, got %d arguments: %w", len(args), errUsage)
	}
	shelf, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil || shelf >= aoe.AnyShelf {
		return fmt.Errorf("shelf %q is not between 0 and %d", args[0], aoe.AnyShelf-1)
	}
	slot, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil || slot >= aoe.AnySlot {
		return fmt.Errorf("slot %q is not between 0 and %d", args[1], aoe.AnySlot-1)
	}
	o.shelf, o.slot, o.netifs, o.path = uint16(shelf), uint8(slot), args[2:3], args[3]
	return nil
}

// fileOptions says how to open a file. Without -s a write is answered when the page cache has it.
// An initiator whose target is killed repeats what was not answered, so the sector that may be half
// written by then is written again.
func (o *options) fileOptions() file.Options {
	fo := file.Options{Direct: file.DirectOff, ReadOnly: o.readOnly, Map: !o.sync}
	if o.direct {
		fo.Direct = file.DirectOn
	}
	return fo
}

// targetOptions give initiators what vblade gives them: they may set everything. It is
// forgotten at exit, unless there is a file for it; then the mask list of the command line
// still goes before the one that was kept.
func (o *options) targetOptions(dev block.Device, stderr io.Writer) (aoe.Options, error) {
	host, _ := os.Hostname()
	to := aoe.Options{
		Shelf: o.shelf, Slot: o.slot, Device: dev,
		Identity: aoe.Identity{
			Serial:   fmt.Sprintf("%d.%d:%s", o.shelf, o.slot, host),
			Firmware: "replblk",
			Model:    "replblk vblade",
		},
		Firmware: firmwareVersion,
		Commit:   aoe.CommitNone,
		Permit:   aoe.PermitAll,
		State:    aoe.State{Mask: o.mask, Config: []byte(o.config)},
		Buffers:  o.buffers,
	}
	if o.sync {
		to.Commit = aoe.CommitGroup
	}
	var warned sync.Once
	to.OnConflict = func(m aoe.MAC, _ bool) {
		warned.Do(func() {
			fmt.Fprintf(stderr, "vblade: warning: %v also answers for e%d.%d\n", m, o.shelf, o.slot)
		})
	}
	if o.state == "" {
		return to, nil
	}
	permit := aoe.PermitAll
	if len(o.mask) > 0 {
		permit &^= aoe.PermitMask
	}
	var err error
	to.State, err = targets.Load(o.state, permit, to.State)
	to.OnState = func(st aoe.State) error {
		err := targets.Keep(o.state, st)
		if err != nil {
			fmt.Fprintf(stderr, "vblade: what an initiator has set cannot be kept: %v\n", err)
		}
		return err
	}
	return to, err
}
