package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
)

// sizeInterval is how often the size of the backing is looked at.
const sizeInterval = time.Second

// followSize looks at the size of the backing now and then, and at once on
// SIGHUP, and advertises the export anew when dev, which is all or part of it,
// has another size. The initiator then reads the identity again.
func followSize(ctx context.Context, backing *file.File, dev block.Device, ports []*aoe.Port, stderr io.Writer) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(sizeInterval)
	defer tick.Stop()
	said := ""
	for sectors := dev.Geometry().Sectors; ; {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		case <-tick.C:
		}
		if _, err := backing.Refresh(); err != nil {
			if text := err.Error(); ctx.Err() == nil && text != said {
				fmt.Fprintf(stderr, "vblade: %s\n", text)
				said = text
			}
			continue
		}
		if now := dev.Geometry().Sectors; now != sectors {
			fmt.Fprintf(stderr, "vblade: the export has %d sectors now, it had %d\n", now, sectors)
			sectors = now
			for _, p := range ports {
				p.Update()
			}
		}
	}
}
