package config

import (
	"strings"
	"testing"
)

func TestDaemonAll(t *testing.T) {
	d, err := LoadDaemon(OS{}, "testdata/replblk/all.ok")
	if err != nil {
		t.Fatal(err)
	}
	e, p, a := d.NBD[0], d.NBD[1], d.AoE[0]
	if e.ExportName != "db" || e.Volume != 1 || !e.ReadOnly || e.TLS != TLSRequire || e.MaxConnections != 4 || len(e.Listen) != 2 ||
		e.Description != `the "database"` {
		t.Errorf("nbd r0: %+v", e)
	}
	if p.ExportName != "plain" || p.ReadOnly || p.TLS != TLSNo || p.MaxConnections != 16 {
		t.Errorf("nbd plain, mostly defaults: %+v", p)
	}
	if a.Shelf != 1 || a.Slot != 2 || len(a.Interfaces) != 2 || len(a.MACs) != 2 || a.ReadOnly || a.ConfigString != "hello there" ||
		a.Address != "02:00:00:00:01:02" || len(a.Permit) != 2 || a.StateFile != "/var/lib/replblk/e1.2" {
		t.Errorf("aoe: %+v", a)
	}
	if len(d.Metrics.Listen) != 2 || d.Control.Socket != "/run/replblk/other" || d.Log.Level != LogDebug || d.TLS.CA == "" ||
		d.DirectIO("r0") != DirectNo || d.DirectIO("disk") != DirectAuto || d.DirectIO("other") != DirectAuto {
		t.Errorf("%+v", d)
	}
	again, err := ParseDaemon(memFS{}, "/dump", []byte(d.Dump()))
	if err != nil {
		t.Fatalf("the dump is refused: %v\n%s", err, d.Dump())
	}
	if d.Dump() != again.Dump() || dump(d.forget()) != dump(again.forget()) {
		t.Errorf("before:\n%s\nafter:\n%s", dump(d), dump(again))
	}
}

func TestDaemonDefaults(t *testing.T) {
	d, err := ParseDaemon(memFS{}, "/r.conf", nil)
	if err != nil {
		t.Fatal(err)
	}
	if dump(d.forget()) != dump(DefaultDaemon().forget()) || d.Control.Socket != "/run/replblk/control" || d.Log.Level != LogInfo {
		t.Errorf("%+v", d)
	}
}

func (d *Daemon) forget() *Daemon {
	d.Files, d.Warnings = nil, nil
	for _, e := range d.NBD {
		e.Pos = Pos{}
	}
	for _, a := range d.AoE {
		a.Pos = Pos{}
	}
	for _, b := range d.Backing {
		b.Pos = Pos{}
	}
	return d
}

func TestDaemonCheck(t *testing.T) {
	c := mustParse(t, pair(""))
	d, err := ParseDaemon(memFS{}, "/r.conf", []byte(`
nbd good { listen "tcp::1"; resource r0; }
nbd bad { listen "tcp::2"; resource r0; volume 3; }
aoe bad { shelf 1; slot 1; interface e; resource r00; }
resource other { }
`))
	if err != nil {
		t.Fatal(err)
	}
	err = d.Check(c)
	want := []string{`/r.conf:3:37: "r0": resource has no volume 3`, `/r.conf:4:50: "r00": unknown resource; did you mean "r0"?`, `/r.conf:5:10: "other": unknown resource`}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
}
