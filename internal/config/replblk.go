package config

import (
	"fmt"
	"slices"
)

// DaemonPath is where replblk's own configuration file is.
const DaemonPath = "/etc/replblk.conf"

// Daemon is what replblk.conf says, with every default filled in. A missing file
// is [DefaultDaemon].
type Daemon struct {
	Metrics MetricsOptions
	Control ControlOptions
	Log     LogOptions
	TLS     TLSOptions
	// NBD and AoE exports and Backing choices in the order of the text.
	NBD      []*NBDExport
	AoE      []*AoETarget
	Backing  []*BackingChoice
	Warnings []Warning
	Files    []string

	// set are the sections as written, for Dump.
	set []daemonBlock
}

// daemonBlock is one section of replblk.conf as it was written.
type daemonBlock struct {
	kind     string
	key      Word
	name     Word
	settings []Setting
}

// MetricsOptions is metrics{}.
type MetricsOptions struct {
	// Listen are the host:port pairs of the Prometheus endpoint; none turns it off.
	Listen []string
}

// ControlOptions is control{}.
type ControlOptions struct {
	// Socket is the path of the administration socket.
	Socket string
}

// LogOptions is log{}.
type LogOptions struct {
	Level  LogLevel
	Format LogFormat
}

// LogLevel is the least severity that is logged.
type LogLevel string

// Values of log level.
const (
	LogInfo  LogLevel = "info"
	LogDebug LogLevel = "debug"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// LogFormat is how log lines are written.
type LogFormat string

// Values of log format.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// TLSOptions is tls{}: PEM files. Certificate and Key come together.
type TLSOptions struct {
	Certificate string
	Key         string
	// CA, if set, makes clients show a certificate it signed.
	CA string
}

// NBDExport is one nbd{} section.
type NBDExport struct {
	Name   string
	Pos    Pos
	Listen []string // "unix:/path" or "tcp:host:port"
	// Resource and Volume say what is exported.
	Resource string
	Volume   uint32
	// ExportName is what clients ask for; the name of the section by default.
	ExportName     string
	Description    string
	ReadOnly       bool
	TLS            TLSMode
	MaxConnections uint32
}

// TLSMode is whether clients may or must use TLS.
type TLSMode string

// Values of nbd tls.
const (
	TLSNo      TLSMode = "no"
	TLSAllow   TLSMode = "allow"
	TLSRequire TLSMode = "require"
)

// AoETarget is one aoe{} section.
type AoETarget struct {
	Name  string
	Pos   Pos
	Shelf uint32 // 0..65534; 65535 is the broadcast address
	Slot  uint32 // 0..254; 255 is the broadcast address
	// Interfaces the target answers on. Those for one network must have the same
	// place in the list on both nodes.
	Interfaces []string
	// Address is AoEAddressVirtual, AoEAddressOwn, or the virtual address on the
	// first interface; those on the next ones follow it.
	Address  string
	Resource string
	Volume   uint32
	// File is what vblade --config serves in place of a volume: a file, a block device
	// or the URI of an NBD export. Exactly one of Resource and File is set.
	File string
	// MACs are the initiators that may use the target; none admits all.
	MACs         []string
	ReadOnly     bool
	ConfigString string
	// Permit is what initiators may set: AoEPermit words.
	Permit []string
	// StateFile keeps what they have set; the default is in AoEStateDir.
	StateFile string
}

// AoEStateDir is where what initiators have set is kept.
const AoEStateDir = "/var/lib/replblk"

// Words of aoe permit.
const (
	AoEPermitConfig  = "config-string"
	AoEPermitMask    = "mask"
	AoEPermitReserve = "reserve"
)

// Words of aoe address. A virtual address moves between the nodes with the role.
const (
	AoEAddressVirtual = "virtual"
	AoEAddressOwn     = "own"
)

// BackingChoice is one resource{} section: how to open the backing devices of a
// resource of drbd.conf.
type BackingChoice struct {
	Resource string
	Pos      Pos
	DirectIO DirectIO
}

// DirectIO is whether backing devices bypass the page cache.
type DirectIO string

// Values of direct-io. Auto uses it where the file system has it.
const (
	DirectAuto DirectIO = "auto"
	DirectYes  DirectIO = "yes"
	DirectNo   DirectIO = "no"
)

// DirectIO returns the choice for a resource, auto if none was made.
func (d *Daemon) DirectIO(resource string) DirectIO {
	for _, b := range d.Backing {
		if b.Resource == resource {
			return b.DirectIO
		}
	}
	return DirectAuto
}

// DefaultDaemon is the configuration without a file.
func DefaultDaemon() *Daemon {
	d := &Daemon{}
	apply(controlSpecs, nil, &d.Control)
	apply(logSpecs, nil, &d.Log)
	return d
}

// LoadDaemon reads replblk.conf and everything it includes.
func LoadDaemon(fsys FS, path string) (*Daemon, error) {
	p := parser{fsys: fsys, seen: make(map[string]bool)}
	stmts, err := p.parseFile(path, fileWord(path), 0)
	return finishDaemon(&p, stmts, err)
}

// ParseDaemon reads a replblk.conf that is already in memory.
func ParseDaemon(fsys FS, name string, data []byte) (*Daemon, error) {
	p := parser{fsys: fsys, seen: make(map[string]bool)}
	stmts, err := p.parseText(name, string(data), fileWord(name), 0)
	return finishDaemon(&p, stmts, err)
}

func finishDaemon(p *parser, stmts []*Stmt, syntax *Error) (*Daemon, error) {
	if syntax != nil {
		return nil, ErrorList{syntax}
	}
	b := daemonBuilder{d: DefaultDaemon(), used: make(map[string]Pos)}
	for _, st := range stmts {
		if b.full() {
			break
		}
		b.section(st)
	}
	b.checkDaemon()
	if err := b.err(); err != nil {
		return nil, err
	}
	b.d.Files, b.d.Warnings = p.files, b.warnings
	return b.d, nil
}

// Check verifies that every section speaks of a resource, and every export of a
// volume, that drbd.conf defines.
func (d *Daemon) Check(c *Config) error {
	var r reporter
	for _, blk := range d.set {
		name, at, volume := blk.reference()
		if name == "" {
			continue
		}
		res := c.Resource(name)
		if res == nil {
			r.fail(at, "unknown resource", "", didYouMean(name, resourceNames(c)))
			continue
		}
		if blk.kind == "resource" || len(res.Hosts) == 0 {
			continue
		}
		if volume > maxVolume || res.Hosts[0].Volume(uint16(volume)) == nil {
			r.fail(at, fmt.Sprintf("resource has no volume %d", volume), "", "")
		}
	}
	return r.err()
}

// reference is the resource and volume a section speaks of.
func (blk *daemonBlock) reference() (name string, at Word, volume uint64) {
	if blk.kind == "resource" {
		return blk.name.Text, blk.name, 0
	}
	for _, s := range blk.settings {
		switch s.Name {
		case "resource":
			name, at = s.Values[0], s.at
		case "volume":
			volume = volumeInfo.decode(s.Values).n
		}
	}
	return name, at, volume
}

// Dump writes replblk.conf in one file without includes; reading it gives an
// equal Daemon, positions aside.
func (d *Daemon) Dump() string {
	var out dumper
	for _, blk := range d.set {
		head := blk.kind
		if blk.name.set() {
			head += " " + quote(blk.name.Text)
		}
		out.open(head)
		out.settings(blk.settings, daemonSection(blk.kind))
		out.close()
		out.line("")
	}
	return out.String()
}

func daemonSection(kind string) *section {
	i := slices.IndexFunc(daemonSections, func(s *section) bool { return s.name == kind })
	if i < 0 {
		return nil
	}
	return daemonSections[i]
}

// defaults fills in what depends on another field.
func (t *AoETarget) defaults() {
	if t.StateFile == "" {
		t.StateFile = fmt.Sprintf("%s/aoe-%d.%d.json", AoEStateDir, t.Shelf, t.Slot)
	}
}

// defaults fills in what depends on another field.
func (e *NBDExport) defaults() {
	if e.ExportName == "" {
		e.ExportName = e.Name
	}
}
