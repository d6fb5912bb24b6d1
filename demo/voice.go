package main

import (
	"fmt"
	"os"
)

// colours says whether the terminal gets them.
var colours = func() bool {
	st, err := os.Stdout.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}()

func coloured(code, text string) string {
	if !colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// say tells what happens next.
func say(format string, args ...any) { fmt.Println("\n" + coloured("1", fmt.Sprintf(format, args...))) }

// detail tells what was seen.
func detail(format string, args ...any) { fmt.Printf("    "+format+"\n", args...) }

// good tells what was verified.
func good(format string, args ...any) {
	fmt.Println("    " + coloured("32", "ok") + " " + fmt.Sprintf(format, args...))
}
