package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/replblk/replblk/block"
	"github.com/replblk/replblk/block/file"
	"github.com/replblk/replblk/block/remote"
)

// backing is what is exported, before -o and -l.
type backing interface {
	block.Device
	io.Closer
}

// dialTimeout bounds the connecting to an NBD server.
const dialTimeout = 10 * time.Second

// open opens a file or block device, or connects to an NBD export.
func (o *options) open(ctx context.Context) (backing, error) {
	if !remote.IsURI(o.path) {
		return file.Open(o.path, o.fileOptions())
	}
	if o.direct {
		return nil, errors.New("option -d is for files, the NBD server opens its own")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return remote.Open(ctx, o.path, o.readOnly)
}

// errLost ends vblade when its NBD server is gone. It is started again by whoever
// started it (systemd does); until then initiators repeat what was not answered.
var errLost = errors.New("connection to the NBD server lost")

// endWhenLost ends ctx with errLost when the NBD server is gone.
func endWhenLost(ctx context.Context, d *remote.Device, end context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case <-d.Lost():
		end(fmt.Errorf("%w: %w", errLost, d.Err()))
	}
}
