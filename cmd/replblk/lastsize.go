package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/replblk/replblk/internal/config"
	"github.com/replblk/replblk/internal/mdtool"
	"github.com/replblk/replblk/metadata"
)

// defaultSizeDir is where drbdmeta notes how large a device was when it was last used.
const defaultSizeDir = "/var/lib/drbd"

// lastSize is the file in which drbdmeta, and the daemon, note how large the disk of a minor
// is: internal metadata lies at its end, and is found there after the disk has grown.
//
//	BYTES<tab>PATH
//	uuid:<tab>DEVICE-UUID
type lastSize struct{ path string }

func lastSizeOf(dir string, minor uint32) lastSize {
	return lastSize{filepath.Join(dir, fmt.Sprintf("drbd-minor-%d.lkbd", minor))}
}

// read returns the sectors that disk had; 0 if nobody knows.
func (l lastSize) read(disk string) (sectors uint64, err error) {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	s.Scan()
	size, path, _ := strings.Cut(s.Text(), "\t")
	n, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a size", l.path, size)
	}
	if path != disk {
		return 0, nil // it was about another disk
	}
	return n / 512, nil
}

// write notes the size, replacing the file as a whole.
func (l lastSize) write(disk string, sectors, uuid uint64) error {
	temp := l.path + ".tmp"
	text := fmt.Sprintf("%d\t%s\nuuid:\t%016X\n", sectors*512, disk, uuid)
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, l.path)
}

// checkResize moves the metadata of a volume whose disk has grown while nobody used it, and
// notes the size. oldSectors is the size that it had, 0 if the noted one counts.
func checkResize(vol *config.Volume, dir string, oldSectors uint64) (moved bool, err error) {
	l := lastSizeOf(dir, vol.Minor)
	if oldSectors == 0 {
		if oldSectors, err = l.read(vol.Disk); err != nil {
			return false, err
		}
	}
	err = withStore(vol, true, func(s mdtool.Store, p metadata.Placement) error {
		if moved, err = mdtool.CheckResize(s, p, oldSectors); err != nil || !p.IsInternal() {
			return err
		}
		m, err := mdtool.Open(s, p)
		if err != nil {
			return err
		}
		return l.write(vol.Disk, uint64(s.Size())/512, m.Superblock.DeviceUUID)
	})
	return moved, err
}

func checkResizeCommand(g *globals) *cobra.Command {
	var old sizeFlag
	c := g.metaCommand("check-resize", "move internal metadata to the end of a disk that has grown", func(cmd *cobra.Command, t *target) error {
		moved, err := checkResize(t.vol, g.sizeDir, uint64(old))
		if moved {
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s: metadata moved to the new end of %s\n", t, t.vol.Disk)
		}
		return err
	})
	c.Flags().Var(&old, "old-size", "size that the disk had (units s, K, M, G; default: what was noted when it was last used)")
	return c
}
