package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replblk/replblk/internal/control"
	"github.com/replblk/replblk/internal/tlstest"
)

// certFiles are where a daemon under test has its certificates.
type certFiles struct{ cert, key, ca string }

func newCertFiles(t *testing.T, ca *tlstest.Authority, until time.Time) certFiles {
	dir := t.TempDir()
	f := certFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
	ca.WriteCA(f.ca)
	ca.Write(ca.Issue("server", until), f.cert, f.key)
	return f
}

func (f certFiles) section() string {
	return fmt.Sprintf("tls { certificate %q; key %q; ca %q; }\n", f.cert, f.key, f.ca)
}

// denied runs a program that must fail and say why.
func denied(t *testing.T, why string, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		t.Errorf("%s %s: %v, want an error that says %q:\n%s", name, strings.Join(args, " "), err, why, out)
	}
}

// TestTLSClients lets libnbd and QEMU use an export through TLS, and shows who is
// refused: clients in the clear, with a certificate of another CA, and to which the
// server's certificate means nothing or has run out.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	ca, other := tlstest.NewAuthority(t), tlstest.NewAuthority(t)
	files := newCertFiles(t, ca, time.Now().Add(time.Hour))
	port := freePort(t)
	a, _ := newPair(t, pairOptions{rest: files.section() +
		fmt.Sprintf("nbd secret { listen \"tcp:127.0.0.1:%d\"; resource r0; tls require; }\n", port)})
	a.start()
	a.must("primary", "--force", "r0")
	uri := func(dir string) string {
		return fmt.Sprintf("nbds://localhost:%d/secret?tls-certificates=%s", port, dir)
	}
	good := ca.ClientDir(ca)
	if out := tool(t, "nbdinfo", uri(good)); !strings.Contains(out, "protocol: newstyle-fixed with TLS, using structured packets") {
		t.Errorf("nbdinfo:\n%s", out)
	}
	if out := tool(t, "nbdinfo", "--list", uri(good)); !strings.Contains(out, `export="secret"`) {
		t.Errorf("nbdinfo --list:\n%s", out)
	}

	image, back := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "back")
	data := make([]byte, diskMiB<<20-1<<20)
	for i := range data {
		data[i] = byte(i>>9 + i>>20)
	}
	if err := os.WriteFile(image, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "nbdcopy", "--flush", "--connections=2", image, uri(good))
	tool(t, "nbdcopy", uri(good), back)
	got, err := os.ReadFile(back)
	if err != nil || len(got) < len(data) || string(got[:len(data)]) != string(data) {
		t.Errorf("what nbdcopy wrote through TLS came back otherwise (%d bytes, %v)", len(got), err)
	}
	tool(t, "qemu-io", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+good, "--image-opts", "-c", "write -P 0xa5 1M 3M", "-c", "read -P 0xa5 1M 3M",
		fmt.Sprintf("driver=nbd,host=localhost,port=%d,export=secret,tls-creds=tls0", port))

	denied(t, "TLS", "nbdinfo", fmt.Sprintf("nbd://localhost:%d/secret", port))
	denied(t, "list request", "nbdinfo", "--list", fmt.Sprintf("nbd://localhost:%d", port))
	denied(t, "", "nbdinfo", uri(other.ClientDir(ca)))
	a.waitForLog("tls handshake")
	denied(t, "erificat", "nbdinfo", uri(ca.ClientDir(other)))

	// A renewed certificate is used at once, for better or worse; half a renewal is not.
	ca.Write(ca.Issue("server", time.Now().Add(-time.Hour)), files.cert, files.key)
	denied(t, "erificat", "nbdinfo", uri(good))
	if err := os.WriteFile(files.key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	denied(t, "erificat", "nbdinfo", uri(good))
	a.waitForLog("changed certificates are not usable")
	ca.Write(ca.Issue("server", time.Now().Add(time.Hour)), files.cert, files.key)
	tool(t, "nbdinfo", uri(good))
	if err := a.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// Where TLS is only allowed, clients without it are served too, and the export that
// requires it on the same address does not show itself to them.
func TestTLSAllowed(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewAuthority(t)
	files := newCertFiles(t, ca, time.Now().Add(time.Hour))
	port := freePort(t)
	a, _ := newPair(t, pairOptions{rest: files.section() +
		fmt.Sprintf("nbd open { listen \"tcp:127.0.0.1:%d\"; resource r0; tls allow; }\n", port) +
		fmt.Sprintf("nbd shut { listen \"tcp:127.0.0.1:%d\"; resource r0; tls require; }\n", port)})
	a.start()
	a.must("primary", "--force", "r0")
	plain, secure := fmt.Sprintf("nbd://localhost:%d/", port), fmt.Sprintf("nbds://localhost:%d/%%s?tls-certificates=%s", port, ca.ClientDir(ca))
	tool(t, "nbdinfo", plain+"open")
	denied(t, "TLS", "nbdinfo", plain+"shut")
	if out := tool(t, "nbdinfo", "--list", "--no-content", plain); strings.Contains(out, "shut") || !strings.Contains(out, "open") {
		t.Errorf("nbdinfo --list in the clear:\n%s", out)
	}
	for _, name := range []string{"open", "shut"} {
		tool(t, "nbdinfo", fmt.Sprintf(secure, name))
	}
}

// Certificates that cannot be used stop the daemon before it touches a disk.
func TestTLSFiles(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewAuthority(t)
	for name, spoil := range map[string]func(f certFiles) string{
		"no key":     func(f certFiles) string { return f.key },
		"no CA":      func(f certFiles) string { return f.ca },
		"no content": func(f certFiles) string { return f.cert },
	} {
		t.Run(name, func(t *testing.T) {
			files := newCertFiles(t, ca, time.Now().Add(time.Hour))
			path := spoil(files)
			if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
				t.Fatal(err)
			}
			a, _ := newPair(t, pairOptions{rest: files.section()})
			a.refused(control.ExitUsage, path, "run")
		})
	}
}
