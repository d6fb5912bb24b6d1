// Package chaos runs pairs of real replblk daemons and breaks what they stand on: it
// kills and stops the processes, injects errors into their system calls with strace,
// and sits between them on the network. Package soak and the tests of real processes
// are made of it; it judges nothing itself.
package chaos
