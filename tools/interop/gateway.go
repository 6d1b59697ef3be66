package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// gateway is sallyportd, asked through sallyport.
type gateway struct {
	rig *rig.Gateway
}

// newGateway writes the configuration: what every gateway on this network has, then the scenario's, which may begin with further interfaces. Files
// of certificates and keys lie beside it.
func newGateway(bed *testbed.Bed, ns *testbed.Namespace, bin, scenario string, credentials map[string][]byte) (*gateway, error) {
	g, err := rig.NewGateway(bed, ns, bin, "sallyport", 0, func(g *rig.Gateway) string {
		return fmt.Sprintf(`instance: interop
control: {socket: %s}
log: {level: debug}
workers: {count: 2}
dataplane: {pin_dir: %s}
interfaces:
  lan: {role: protected}
  wan: {role: outside}
%s`, g.Socket, g.Pins, strings.TrimPrefix(scenario, "interfaces:\n"))
	})
	if err != nil {
		return nil, err
	}
	for path, text := range credentials {
		path = filepath.Join(filepath.Dir(g.Config), filepath.Base(path))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return &gateway{g}, nil
}

// Start waits until the daemon answers.
func (g *gateway) Start(ctx context.Context) error {
	if err := g.rig.Launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return eventually(ctx, func() error {
		if err := g.rig.Alive(); err != nil {
			cancel() // it will not come back
			return err
		}
		_, err := g.rig.Ask("status", "--json")
		return err
	})
}

func (g *gateway) Kill() { g.rig.Kill() }

func (g *gateway) Stop() error { return g.rig.Stop(5 * time.Second) }

func (g *gateway) Up(_ context.Context, connection, child string) error {
	_, err := g.rig.Ask("up", name(connection, child))
	return err
}

func (g *gateway) Down(_ context.Context, connection string) error {
	_, err := g.rig.Ask("down", connection)
	return err
}

func (g *gateway) Rekey(_ context.Context, connection, child string) error {
	_, err := g.rig.Ask("rekey", name(connection, child))
	return err
}

func name(connection, child string) string {
	if child == "" {
		return connection
	}
	return connection + "/" + child
}

func (g *gateway) Log() ([]byte, error) {
	text, err := os.ReadFile(g.rig.Log)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (g *gateway) SAs(context.Context) ([]ikeSA, error) {
	text, err := g.rig.Ask("sas", "--json")
	if err != nil {
		return nil, err
	}
	var answer struct {
		SAs []struct {
			Name         string   `json:"name"`
			State        string   `json:"state"`
			Initiator    bool     `json:"initiator"`
			InitiatorSPI string   `json:"initiator_spi"`
			ResponderSPI string   `json:"responder_spi"`
			LocalID      string   `json:"local_id"`
			LocalHost    string   `json:"local_host"`
			LocalPort    int      `json:"local_port"`
			LocalVIPs    []string `json:"local_vips"`
			RemoteID     string   `json:"remote_id"`
			RemoteHost   string   `json:"remote_host"`
			RemotePort   int      `json:"remote_port"`
			RemoteVIPs   []string `json:"remote_vips"`
			Proposal     string   `json:"proposal"`
			Children     []struct {
				Name     string    `json:"name"`
				State    string    `json:"state"`
				Encap    string    `json:"encap"`
				Proposal string    `json:"proposal"`
				In       direction `json:"in"`
				Out      direction `json:"out"`
				LocalTS  []string  `json:"local_ts"`
				RemoteTS []string  `json:"remote_ts"`
			} `json:"children"`
		} `json:"ike_sas"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("sallyport sas: %w", err)
	}
	var all []ikeSA
	for _, a := range answer.SAs {
		s := ikeSA{
			Connection: a.Name, Established: a.State == "established", Initiator: a.Initiator,
			SPIInitiator: a.InitiatorSPI, SPIResponder: a.ResponderSPI,
			Local: a.LocalHost, LocalPort: a.LocalPort, LocalID: a.LocalID,
			Remote: a.RemoteHost, RemotePort: a.RemotePort, RemoteID: a.RemoteID,
			VIPs: append(a.LocalVIPs, a.RemoteVIPs...), Proposal: a.Proposal,
		}
		for _, c := range a.Children {
			if c.State != "installed" {
				continue
			}
			s.Children = append(s.Children, child{
				Name: c.Name, SPIIn: c.In.SPI, SPIOut: c.Out.SPI, Encap: c.Encap == "udp",
				// strongSwan has no word for sequence numbers that are not extended, and here no others.
				Proposal: strings.TrimSuffix(c.Proposal, "-noesn"),
				LocalTS:  c.LocalTS, RemoteTS: c.RemoteTS,
				PacketsIn: c.In.Packets, PacketsOut: c.Out.Packets, PathMTU: c.Out.probed(),
			})
		}
		all = append(all, s)
	}
	return all, nil
}

// direction is one association of a child.
type direction struct {
	SPI     string `json:"spi"`
	Packets uint64 `json:"packets"`
	PathMTU int    `json:"path_mtu"`
	Probed  bool   `json:"path_mtu_probed"`
}

// probed is the path MTU of a direction that was probed, 0 if none was.
func (d direction) probed() int {
	if !d.Probed {
		return 0
	}
	return d.PathMTU
}

// Drops are the counters of packets that were dropped, by reason.
func (g *gateway) Drops(context.Context) (map[string]uint64, error) {
	text, err := g.rig.Ask("counters", "--json")
	if err != nil {
		return nil, err
	}
	var counters struct {
		Drops []struct {
			Name    string `json:"name"`
			Packets uint64 `json:"packets"`
		} `json:"drops"`
	}
	if err := json.Unmarshal(text, &counters); err != nil {
		return nil, err
	}
	drops := map[string]uint64{}
	for _, d := range counters.Drops {
		drops[d.Name] = d.Packets
	}
	return drops, nil
}

// Report is what the gateway's tool shows of itself, for a person.
func (g *gateway) Report(context.Context) string {
	var b strings.Builder
	for _, verb := range []string{"status", "conns", "sas", "policies", "counters"} {
		if text, err := g.rig.Ask(verb); err == nil {
			fmt.Fprintf(&b, "── sallyport %s\n%s", verb, text)
		}
	}
	return b.String()
}
