//go:build interop

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// setup84 begins a command of drbdsetup in the machine.
const setup84 = "/lib/drbd/drbdsetup-84 "

// plainCommand matches a command of drbdadm that is a fixed row of other programs' commands, whatever
// the kernel's state is. Which ones only the configuration says.
var plainCommand = regexp.MustCompile(`drbdadm (?:-- --\S+ )?(?:up|down|attach|detach|connect|disconnect|primary|secondary|` +
	`new-current-uuid|verify|pause-sync|resume-sync|suspend-io|resume-io)(?: --\S+)* r0(?:/\d)?\b`)

// shortened replaces such commands by what drbdadm would carry out, as it says itself on this
// side: in the machine it takes ten times as long as what it calls, and gives up what
// takes more than five seconds.
func (k *kernel) shortened(cmd string) string {
	k.t.Helper()
	if k.conf == "" {
		return cmd
	}
	return plainCommand.ReplaceAllStringFunc(cmd, func(c string) string {
		out, ok := k.plain[c]
		if !ok {
			out = k.dryRun(c)
			if k.plain == nil {
				k.plain = map[string]string{}
			}
			k.plain[c] = out
		}
		return out
	})
}

// dryRun asks drbdadm on this side what it would carry out.
func (k *kernel) dryRun(cmd string) string {
	k.t.Helper()
	conf := fileName(k.t, "drbd.conf")
	if err := os.WriteFile(conf, []byte(k.conf), 0o644); err != nil {
		k.t.Fatal(err)
	}
	adm := exec.Command("/lib/drbd/drbdadm-84", slices.Concat([]string{"-c", conf, "-d"}, strings.Fields(cmd)[1:])...)
	var complaint strings.Builder
	adm.Stderr = &complaint
	out, err := adm.Output()
	if err != nil || len(out) == 0 {
		k.t.Fatalf("%s: %v: %s", cmd, err, complaint.String())
	}
	var steps []string
	for line := range strings.Lines(strings.TrimSpace(string(out))) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, " apply-al") { // 20: there was nothing to do
			line = fmt.Sprintf("{ %s || [ $? = 20 ]; }", line)
		}
		steps = append(steps, line)
	}
	return "{ " + strings.Join(steps, " && ") + "; }"
}
