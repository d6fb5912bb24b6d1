// Package config reads the drbd.conf grammar of DRBD 8.4 (spec chapter 11,
// including the 8.3 spellings) and replblk's own file, /etc/replblk.conf, which
// is written in the same grammar.
//
// Text becomes plain structs in three layers, each with one job:
//
//	lexer.go    bytes to words with file, line and column
//	parse.go    words to statements: a tree that knows no option; includes
//	schema.go   the tables: every option with its kind, limits, unit, default
//	build*.go   statements to settings, checked against the tables
//	resolve.go  settings to structs: inheritance, defaults, derived values
//	check.go    what must hold between statements: uniqueness, combinations
//	dump.go     structs to canonical 8.4 text; reading it gives the same structs
//
// The parser reaches the outside only through [FS]; [OS] is the real one.
//
// # Errors
//
// Every error is an [*Error] with a position, the word that is wrong, what was
// expected and, where one can be guessed, a suggestion. A word out of grammar
// ends the reading; errors about options are collected, and [ErrorList] holds up
// to 20 of them in the order of the text. What is accepted but has no effect is a [Warning].
//
// Where drbdadm would pass a value on and leave the refusal to the kernel
// (policies, cpu-mask, protocol combinations), this package refuses it here, at
// the word. Where drbdadm silently picks one of two (an option set twice), the
// same one is picked and a warning says so.
//
// # Limits
//
// A file is at most 1 MiB, all files together 16 MiB in 1024 files, includes nest
// 16 deep, blocks 8 deep, a statement has 64 words. Words and strings have the
// limits of 11.1 (128 and 255 bytes).
//
// # /etc/replblk.conf
//
// Whatever drbdadm does not know stands here, so that a .res file stays usable
// by both. Sections and options ([Schema] has the limits):
//
//	metrics { listen "127.0.0.1:9942"; }          # Prometheus; no listen, no metrics
//	control { socket "/run/replblk/control"; }    # administration socket
//	log     { level info; format text; }
//	tls     { certificate PATH; key PATH; ca PATH; }
//	nbd NAME {                                    # one NBD export, any number of them
//		listen "unix:/run/replblk/nbd.sock";      # may be repeated
//		listen "tcp:127.0.0.1:10809";
//		resource r0; volume 0;
//		export-name "r0";                         # default: NAME
//		description "database";
//		read-only no; tls no|allow|require; max-connections 16;
//	}
//	aoe NAME {                                    # one AoE target, any number of them
//		shelf 1; slot 1;
//		interface eth0;                           # may be repeated
//		resource r0; volume 0;
//		mac "02:00:00:00:00:01";                  # who may use it; may be repeated; none: all
//		read-only no; config-string "";
//	}
//	resource r0 { direct-io auto; }               # choices for the backing devices
//
// include and skip work as in drbd.conf.
package config
