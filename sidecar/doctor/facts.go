package doctor

import (
	"time"

	"github.com/walbaton/walbaton/archiver/wal"
	"github.com/walbaton/walbaton/leader"
)

// Facts is all that the checks look at. A string called Err is why something could not be asked or done, in one clause; "" means that it was.
type Facts struct {
	Now     time.Time
	Version string // of this program

	ConfigurationErr  string // it cannot be used; then nothing else is known
	ConfigurationHint string
	ConfigFile        string // walbaton.yml; "" none
	PatroniConfig     string // Patroni's file; "" from variables, or none
	Scope, Member     string // Member may be ""
	Cluster           string // what patronictl calls it: the scope, with --group for Citus
	Static            bool   // a single PostgreSQL without Patroni
	REST              bool   // dcs.kind rest: there is no baton
	StandbyCluster    bool
	Pods              bool // members are Pods, and of the same name

	User string // who examines, by name
	UID  int

	Local    *Local // nil where this machine is not a member
	NotLocal string // why it is not

	DCS      DCS
	Patroni  Patroni
	Nodes    []Node // by name
	Archives []Archive
}

// Local is the machine that doctor runs on.
type Local struct {
	DataDir  string
	Owner    int // of the data directory; -1 unknown
	OwnerIs  string
	DataErr  string // PG_VERSION or pg_control cannot be read
	WALErr   string // pg_wal or archive_status cannot be read, or files there cannot be renamed
	SystemID uint64

	Socket     string
	SocketErr  string // nobody answers there
	SocketShut bool   // to this user: somebody else may be answered
	SidecarUID int    // of who listens; -1 unknown
	SidecarIs  string

	Client    string // path of walbaton-wal, as archive_command names it; "" it names none
	ClientErr string // it cannot be executed
	ClientIs  string // its version
	Apart     bool   // PostgreSQL runs in another container, with programs of its own

	KeepDir string
	KeepErr string // it cannot be made or written to, or lies on another file system
}

// DCS is the store that Patroni's cluster agrees in.
type DCS struct {
	Name     string // redacted
	Err      string
	Refused  bool // Err is about a right that is missing
	Warnings []string
	SystemID uint64 // as Patroni recorded it
	Leader   string
	Paused   bool
	Holder   string // of the baton; "" free
	Timeline uint32 // of the line, 0 unknown
	// Nobody are segments that the archive lacks and no live sidecar lists.
	Nobody      leader.Ranges
	SegmentSize wal.SegmentSize // 0 unknown
}

// Patroni is what its REST API says of the cluster.
type Patroni struct {
	Err     string         // no member's API answers
	Dynamic map[string]any // the dynamic configuration; nil unknown
}

// Parameter gives a PostgreSQL setting of the dynamic configuration: of its section parameters, or, as those about recovery can be
// there too, recovery_conf.
func (p Patroni) Parameter(name string) (string, bool) {
	pg, _ := p.Dynamic["postgresql"].(map[string]any)
	for _, section := range []string{"parameters", "recovery_conf"} {
		params, _ := pg[section].(map[string]any)
		if v, ok := params[name]; ok && v != nil {
			return text(v), true
		}
	}
	return "", false
}

// Node is one member.
type Node struct {
	Name   string
	Here   bool // it is this machine
	Leader bool
	State  string // Patroni's word
	Host   string // of its PostgreSQL
	Port   int
	Tag    string // the value of its tag "walbaton"

	SQL     SQL
	REST    NodeREST
	Sidecar Sidecar
}

// SQL is what a server said to a connection with Patroni's credentials.
type SQL struct {
	Err      string
	Version  int // server_version_num
	SystemID uint64

	InRecovery bool
	Settings   map[string]Setting // pg_settings: those about archiving, and all that wait for a restart
	Offset     time.Duration      // of its clock against this machine's
	Exact      time.Duration      // how far Offset may be off
}

// Setting is a row of pg_settings.
type Setting struct {
	Value   string // in effect
	Pending bool   // another value waits for a restart
	File    string // that it stands in; "" for a default, or where this user may not know
}

// NodeREST is a member's REST API.
type NodeREST struct {
	Err     string
	Version string // of Patroni
	Server  int    // server_version_num; 0 unknown
	Pending bool
	Reasons []string // settings that the restart is for; from Patroni 3.3 on
}

// Sidecar is the walbaton beside a node.
type Sidecar struct {
	Live     bool // its record in the DCS is bound to a lease that is held
	Readable bool // the record is of a version that this program understands
	Record   int  // its version
	Has      leader.Ranges
	Misses   leader.Ranges // of Has, not known to be in the archive

	Address   string
	Err       string // /status.json does not answer
	Version   string // of the program
	SystemID  uint64
	Ready     bool
	Why       string // it is not ready
	DCSErr    string
	Open      bool   // the archive: proven, identified
	Store     bool   // it answers this sidecar
	Socket    string // where it listens; "" unknown
	Pace      uint64 // bytes of WAL in a second
	Free      uint64 // bytes on the disk of pg_wal; 0 unknown
	Alarms    []Alarm
	Retention string // what keeps it from expiring anything; known to the holder only
	Offset    time.Duration
	Exact     time.Duration

	// ArchiveMode and the commands are what its server says; "" unknown. A command that is not walbaton's is cut to its program.
	ArchiveMode, ArchiveCommand, RestoreCommand string

	// Waiting is how many segments wait here, and Oldest the first of them.
	Waiting int
	Oldest  string
	// Since is how long Oldest has waited; 0 unknown.
	Since time.Duration

	Verify *Verify // known to the holder only
	Window string  // what can be restored, in words; "" unknown
}

// Alarm is a file that needs a person.
type Alarm struct{ Name, Why string }

// Verify is what the holder found when it looked at the archive.
type Verify struct {
	At           time.Time // zero: not yet
	Problems     []string  // one sentence each, of many the first
	More         int
	Acknowledged int
	Failed       string
}

// Proof is what was seen of put-if-absent.
type Proof string

// The outcomes.
const (
	Proven   Proof = "proven"
	Refuted  Proof = "refuted" // a second writer got the key
	NotTried Proof = "not tried"
	NoProof  Proof = "failed" // it could not be shown
)

// Archive is one archive.
type Archive struct {
	Name     string // of one of several
	Required bool
	URL      string // redacted
	Err      string
	Hint     string
	Proof    Proof
	ProofErr string
	Refused  bool // ProofErr is about a right that is missing

	Begun       bool // archive.json of this cluster is there
	IdentityErr string
	SystemID    uint64
	Others      []uint64 // system identifiers of other archives under the scope
	FirstFloor  uint32   // its timeline
	Histories   []uint32

	Offset time.Duration // of the store's clock; valid with Exact > 0
	Exact  time.Duration
}

// node gives a node by its name.
func (f Facts) node(name string) (Node, bool) {
	for _, n := range f.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}
