// Package control is the protocol between the daemon and the administration
// commands: JSON lines over a Unix socket.
//
// A connection carries one command. The client sends one [Request] in one line;
// the server answers with any number of lines that hold a value each (a
// command that streams, such as events, sends many), and one last line with Done
// set, which says how the command ended:
//
//	→ {"version":1,"command":"primary","resource":"r0"}
//	← {"version":1,"done":true}
//
//	→ {"version":1,"command":"primary","resource":"r1"}
//	← {"version":1,"done":true,"exit":17,"error":"r1: State change failed: (-2) Need access to UpToDate data"}
//
// Exit is the exit code that drbdsetup has for the same outcome (spec 10.5). A
// client that closes the connection ends a streaming command; others are carried
// out regardless.
//
// # Limits
//
// A request is at most 64 KiB and must arrive within 5 s; 64 connections are
// served at once, further ones wait in the listener's queue. Whoever can open the socket
// may do everything: its file mode is the access control.
package control
