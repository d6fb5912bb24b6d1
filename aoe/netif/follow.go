package netif

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// resubscribePause is how long the timer alone looks after the interface when the
// kernel's news have broken off.
const resubscribePause = time.Second

// follow listens to the kernel's news about links until ctx ends.
func (i *Interface) follow(ctx context.Context) {
	for ctx.Err() == nil {
		if err := i.subscribe(ctx); err != nil {
			i.log.Warn("no news of interfaces, looking every second", "err", err)
		}
		i.something() // whatever was missed
		select {
		case <-ctx.Done():
		case <-time.After(resubscribePause):
		}
	}
}

var errBrokenOff = errors.New("the kernel's news of links have broken off")

// subscribe listens until ctx ends or the kernel had more news than fit.
func (i *Interface) subscribe(ctx context.Context) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{}); err != nil {
		return err
	}
	i.something() // between the last look and now
	enslaved := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, open := <-updates:
			if !open {
				return errBrokenOff
			}
			i.something()
			if a := u.Attrs(); a.Name == i.name {
				if a.MasterIndex != enslaved && a.MasterIndex != 0 {
					i.warnMaster(a.MasterIndex)
				}
				enslaved = a.MasterIndex
			}
		}
	}
}

// warnMaster warns of the one change that cannot be followed: the interface has
// kept its name and is a port of a bridge now, which takes all its frames.
func (i *Interface) warnMaster(index int) {
	master, err := netlink.LinkByIndex(index)
	if err == nil && master.Type() == "bridge" {
		i.log.Error("interface has become a port of a bridge, no frame will arrive on it: configure the bridge", "bridge", master.Attrs().Name)
	}
}

// warnAddresses warns of an interface that looks healthy and does not receive what is
// sent to a virtual address.
func (i *Interface) warnAddresses() {
	if !i.port.Virtual() {
		return
	}
	l, err := netlink.LinkByName(i.name)
	if err != nil {
		return
	}
	if m, ok := l.(*netlink.Macvlan); ok && m.Mode != netlink.MACVLAN_MODE_PASSTHRU {
		i.log.Error("a macvlan receives for its own address only, so clients will find the target and get no answer: make it with mode passthru, or configure address own")
	}
}

// something has happened to some link.
func (i *Interface) something() {
	i.port.Poke()
	select {
	case i.news <- struct{}{}:
	default:
	}
}
