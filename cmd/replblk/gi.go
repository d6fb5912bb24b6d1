package main

import (
	"fmt"
	"io"
	"strings"
)

var giNames = [...]string{"current", "bitmap", "younger history", "older history"}

var giFlags = [...][2]string{ // meaning of a set and of a clear flag
	{"the data is consistent", "the data is not consistent (a resync was interrupted)"},
	{"the data was up to date when it was last seen", "the data is outdated"},
	{"the node is, or was when it ended, Primary", "the node is not Primary"},
	{"the node is, or was when it ended, connected", "the node is not connected"},
	{"the next resync copies everything", "the next resync copies what has changed"},
	{"the peer's data is known to be outdated", "nothing bad is known of the peer's data"},
	{"the node crashed as Primary", "the node did not crash as Primary"},
}

// writeGI explains the line of get-gi.
func writeGI(w io.Writer, gi string) {
	fields := strings.Split(gi, ":")
	_, _ = fmt.Fprintf(w, "\n%s\n\n", gi)
	for i, f := range fields {
		switch {
		case i < len(giNames):
			_, _ = fmt.Fprintf(w, "  %s  %s data generation\n", f, giNames[i])
		case i-len(giNames) < len(giFlags):
			text := giFlags[i-len(giNames)]
			meaning := text[0]
			if f == "0" {
				meaning = text[1]
			}
			_, _ = fmt.Fprintf(w, "  %16s  %s\n", f, meaning)
		}
	}
	_, _ = fmt.Fprintln(w)
}
