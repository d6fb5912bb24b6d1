// Package netif serves an aoe.Port on the interface of a name, whatever happens to
// that interface: it may come late, go down and up, change its MTU, go away and come
// again, or be renamed and replaced by another one, as Xen's bridge set-up does with
// a bond after its guests' servers have started.
//
// The name is what counts. A socket stays with the interface that it was opened on,
// and once that is a port of a bridge it receives nothing and looks healthy
// (spec/aoe.md 7.5), so every news of the kernel about any link makes the port compare
// name and index, and so does a timer, in case news was lost.
package netif
