package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// end is one of the two gateways: what a scenario does to it and reads from it.
type end interface {
	Start(ctx context.Context) error // runs it and has it read its configuration
	Kill()                           // at once, as a power cut does
	Stop() error                     // as an administrator does
	Up(ctx context.Context, connection, child string) error
	Down(ctx context.Context, connection string) error
	Rekey(ctx context.Context, connection, child string) error // no child: the IKE SA
	SAs(ctx context.Context) ([]ikeSA, error)
	Log() ([]byte, error) // everything since the first start
}

// ikeSA is an IKE SA as its end's own control tool shows it, in words that both ends share.
type ikeSA struct {
	Connection   string   `json:"connection"`
	Established  bool     `json:"established"`
	Initiator    bool     `json:"initiator"`
	SPIInitiator string   `json:"spi_initiator"` // hexadecimal
	SPIResponder string   `json:"spi_responder"`
	Local        string   `json:"local"` // address
	Remote       string   `json:"remote"`
	LocalPort    int      `json:"local_port"`
	RemotePort   int      `json:"remote_port"`
	LocalID      string   `json:"local_id"`
	RemoteID     string   `json:"remote_id"`
	VIPs         []string `json:"vips,omitempty"` // of either side
	Proposal     string   `json:"proposal"`       // e.g. aes256gcm16-prfsha256-x25519
	Children     []child  `json:"children"`
}

// child is a child SA that is installed.
type child struct {
	Name       string   `json:"name"`
	SPIIn      string   `json:"spi_in"`
	SPIOut     string   `json:"spi_out"`
	Encap      bool     `json:"encap"` // ESP in UDP
	Proposal   string   `json:"proposal"`
	LocalTS    []string `json:"local_ts"`
	RemoteTS   []string `json:"remote_ts"`
	PacketsIn  uint64   `json:"packets_in"`
	PacketsOut uint64   `json:"packets_out"`
	PathMTU    int      `json:"path_mtu,omitempty"` // probed, of the gateway only
}

// spis names an IKE SA.
func (s ikeSA) spis() string { return s.SPIInitiator + "/" + s.SPIResponder }

// want is what a scenario expects of one end's associations. What is not given is not
// checked. A text that begins with ~ is a regular expression for the whole.
type want struct {
	SAs        *int     `yaml:"sas"`       // established IKE SAs; 1 if not given
	HalfOpen   *int     `yaml:"half_open"` // others
	Children   *int     `yaml:"children"`  // of the first of these; 1 if not given
	Connection string   `yaml:"connection"`
	Initiator  *bool    `yaml:"initiator"`
	IKE        string   `yaml:"ike"` // proposal
	ESP        string   `yaml:"esp"` // proposal of the first child
	Local      string   `yaml:"local"`
	Remote     string   `yaml:"remote"`
	LocalPort  string   `yaml:"local_port"`
	RemotePort string   `yaml:"remote_port"`
	LocalID    string   `yaml:"local_id"`
	RemoteID   string   `yaml:"remote_id"`
	VIPs       []string `yaml:"vips"`
	Encap      *bool    `yaml:"encap"`
	LocalTS    []string `yaml:"local_ts"` // of the first child, in any order
	RemoteTS   []string `yaml:"remote_ts"`
	PathMTU    string   `yaml:"path_mtu"` // as it was probed, of the gateway only
}

// differs says what is not as wanted, or nothing.
func (w want) differs(all []ikeSA) string {
	var up []ikeSA
	for _, s := range all {
		if s.Established {
			up = append(up, s)
		}
	}
	count := 1
	if w.SAs != nil {
		count = *w.SAs
	}
	if len(up) != count {
		return fmt.Sprintf("%d IKE SAs, not %d", len(up), count)
	}
	if half := len(all) - len(up); w.HalfOpen != nil && half != *w.HalfOpen {
		return fmt.Sprintf("%d IKE SAs are not established, instead of %d", half, *w.HalfOpen)
	}
	if count == 0 {
		return ""
	}
	s := up[0]
	children := 1
	if w.Children != nil {
		children = *w.Children
	}
	if len(s.Children) != children {
		return fmt.Sprintf("%d child SAs, not %d", len(s.Children), children)
	}
	type pair struct{ what, got, want string }
	pairs := []pair{
		{"connection", s.Connection, w.Connection}, {"IKE proposal", s.Proposal, w.IKE},
		{"local address", s.Local, w.Local}, {"remote address", s.Remote, w.Remote},
		{"local port", fmt.Sprint(s.LocalPort), w.LocalPort}, {"remote port", fmt.Sprint(s.RemotePort), w.RemotePort},
		{"local identity", s.LocalID, w.LocalID}, {"remote identity", s.RemoteID, w.RemoteID},
	}
	if w.Initiator != nil {
		pairs = append(pairs, pair{"initiator", fmt.Sprint(s.Initiator), fmt.Sprint(*w.Initiator)})
	}
	type lists struct {
		what      string
		got, want []string
	}
	compared := []lists{{"virtual addresses", s.VIPs, w.VIPs}}
	if children > 0 {
		c := s.Children[0]
		pairs = append(pairs, pair{"ESP proposal", c.Proposal, w.ESP}, pair{"probed path MTU", fmt.Sprint(c.PathMTU), w.PathMTU})
		if w.Encap != nil {
			pairs = append(pairs, pair{"ESP in UDP", fmt.Sprint(c.Encap), fmt.Sprint(*w.Encap)})
		}
		compared = append(compared, lists{"local selectors", c.LocalTS, w.LocalTS}, lists{"remote selectors", c.RemoteTS, w.RemoteTS})
	}
	for _, l := range compared {
		if l.want != nil && sorted(l.got) != sorted(l.want) {
			return fmt.Sprintf("%s are %q, not %q", l.what, sorted(l.got), sorted(l.want))
		}
	}
	for _, p := range pairs {
		if p.want != "" && !matches(p.want, p.got) {
			return fmt.Sprintf("%s is %q, not %q", p.what, p.got, p.want)
		}
	}
	return ""
}

func sorted(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return strings.Join(list, " ")
}

func matches(want, got string) bool {
	if pattern, ok := strings.CutPrefix(want, "~"); ok {
		return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(got)
	}
	return want == got
}
