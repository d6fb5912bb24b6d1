// Command reserve sets the reserve list of e1.1 from the machine of the interop tests,
// which Linux's driver cannot, and prints the list that stands then.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/replblk/replblk/aoe"
	"github.com/replblk/replblk/aoe/aoetest"
	"github.com/replblk/replblk/aoe/packet"
)

func main() {
	name := flag.String("if", "eth0", "interface")
	flag.Parse()
	list, err := reserve(*name, flag.Args())
	if err != nil {
		fmt.Println("reserve:", err)
		os.Exit(1)
	}
	for _, m := range list {
		fmt.Println(m)
	}
}

func reserve(name string, members []string) ([]aoe.MAC, error) {
	var macs []aoe.MAC
	for _, s := range members {
		m, err := aoe.ParseMAC(s)
		if err != nil {
			return nil, err
		}
		macs = append(macs, m)
	}
	link, err := packet.Open(name, packet.Options{Filter: packet.Filter{Everything: true}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = link.Close() }()
	c := aoetest.NewClient(link, 1, 1)
	if _, err := c.Discover(); err != nil {
		return nil, fmt.Errorf("discover: %w", err)
	}
	r, err := c.Reserve(aoe.ReserveSet, macs...)
	return r.MACs, err
}
