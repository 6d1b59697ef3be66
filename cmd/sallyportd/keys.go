package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/ike"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// named says whether CONNECTION/CHILD is what a query asks for.
func named(name, query string) bool {
	connection, _, _ := strings.Cut(name, "/")
	return query == "" || name == query || connection == query
}

// ikeSAs lists the IKE SAs that a query asks for, with what the data plane knows of their children.
func (g *gateway) ikeSAs(query string, associations []control.SA) []control.IKESA {
	known := map[string]*control.SA{} // by direction and SPI; outbound SPIs are unique for a peer only
	for i := range associations {
		s := &associations[i]
		known[s.Direction+s.SPI+s.Name] = s
	}
	out := []control.IKESA{}
	connection, child, oneChild := strings.Cut(query, "/")
	g.keys.List(func(i *ike.Info) bool {
		s := ikeSA(i, known)
		if query != "" && s.Name != connection {
			return true
		}
		for n := range s.Children {
			s.Children[n].Number, s.Children[n].Tunnel = g.keys.Place(i.Children[n].SPIIn)
		}
		if oneChild {
			s.Children = slices.DeleteFunc(s.Children, func(c control.ChildSA) bool { return c.Name != child })
		}
		out = append(out, s)
		return true
	})
	slices.SortFunc(out, func(a, b control.IKESA) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
	return out
}

func ikeSA(i *ike.Info, known map[string]*control.SA) control.IKESA {
	s := control.IKESA{
		Number: i.Number, State: i.State.String(), Version: 2, Initiator: i.Initiator,
		InitiatorSPI: i.SPIi.String(), ResponderSPI: i.SPIr.String(),
		LocalHost: i.Local.Addr().String(), LocalPort: i.Local.Port(), RemoteHost: i.Remote.Addr().String(), RemotePort: i.Remote.Port(),
		LocalID: i.LocalID.String(), RemoteID: i.RemoteID.String(), LocalVIPs: words(i.LocalVIPs), RemoteVIPs: words(i.RemoteVIPs),
		EstablishedAt: i.Established, RekeyAt: i.RekeyAt, ReauthAt: i.ReauthAt, ExpireAt: i.ExpireAt, LastIn: i.LastIn,
		NATLocal: i.NATLocal, NATRemote: i.NATRemote, Encap: i.Encap, MOBIKE: i.MOBIKE, Fragmentation: i.Fragments, PathProbing: i.PathProbing,
		Waiting: i.RequestOut, Queued: i.Queued, Worker: i.Shard, Children: []control.ChildSA{},
	}
	if i.Connection != nil {
		s.Name = i.Connection.Name
	}
	if i.Choice.Encr != 0 {
		s.Proposal = i.Choice.String()
	}
	for n := range i.Children {
		s.Children = append(s.Children, childSA(s.Name, &i.Children[n], i.Usage[n], known))
	}
	return s
}

func childSA(connection string, c *ikesa.ChildInfo, u ike.Usage, known map[string]*control.SA) control.ChildSA {
	out := control.ChildSA{
		State: c.State, Mode: c.Mode.String(), Protocol: c.Choice.Protocol().String(), Encap: "none", Proposal: c.Choice.String(),
		InstalledAt: c.Created, RekeyAt: c.RekeyAt, ExpireAt: c.ExpireAt, LocalTS: words(c.LocalTS), RemoteTS: words(c.RemoteTS),
		In:  control.Direction{SPI: fmt.Sprintf("%08x", c.SPIIn), Bytes: u.BytesIn, Packets: u.PacketsIn, LastUsed: u.LastIn, Worker: -1, Drops: []control.Drop{}},
		Out: control.Direction{SPI: fmt.Sprintf("%08x", c.SPIOut), Bytes: u.BytesOut, Packets: u.PacketsOut, LastUsed: u.LastOut, Worker: -1, Drops: []control.Drop{}},
	}
	if c.Child != nil {
		out.Name = c.Child.Name
	}
	if c.Encap {
		out.Encap = "udp"
	}
	for _, d := range []struct {
		name string
		to   *control.Direction
	}{{"in", &out.In}, {"out", &out.Out}} {
		if s := known[d.name+"0x"+d.to.SPI+connection+"/"+out.Name]; s != nil {
			d.to.Sequence, d.to.Window, d.to.Worker, d.to.Drops, d.to.Terms = s.Sequence, s.Window, s.Worker, s.Drops, s.Terms
			d.to.Volume, d.to.Path = s.Volume, s.Path
			out.Interface, out.Encapsulation = s.Interface, s.Encapsulation
		}
	}
	return out
}

func words[T fmt.Stringer](list []T) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// target splits CONNECTION or CONNECTION/CHILD, and finds it in the configuration.
func (g *gateway) target(name string) (connection, child string, err error) {
	connection, child, _ = strings.Cut(name, "/")
	g.mu.RLock()
	defer g.mu.RUnlock()
	at := slices.IndexFunc(g.config.Connections, func(c *ikesa.Connection) bool { return c.Name == connection })
	if at < 0 {
		return "", "", fmt.Errorf("no connection %q is negotiated", connection)
	}
	if child != "" && !slices.ContainsFunc(g.config.Connections[at].Children, func(c *ikesa.Child) bool { return c.Name == child }) {
		return "", "", fmt.Errorf("connection %q has no child %q", connection, child)
	}
	return connection, child, nil
}

// Up answers the verb up.
func (g *gateway) Up(ctx context.Context, name string) error { return g.act(ctx, name, g.keys.Up) }

// Down answers the verb down.
func (g *gateway) Down(ctx context.Context, name string) error { return g.act(ctx, name, g.keys.Down) }

// Rekey answers the verb rekey.
func (g *gateway) Rekey(ctx context.Context, name string) error {
	return g.act(ctx, name, g.keys.Rekey)
}

func (g *gateway) act(ctx context.Context, name string, do func(ctx context.Context, connection, child string) error) error {
	connection, child, err := g.target(name)
	if err != nil {
		return err
	}
	return do(ctx, connection, child)
}

// Connections answers the verb conns.
func (g *gateway) Connections() control.Connections {
	established, installed := map[string]int{}, map[string]int{}
	g.keys.List(func(i *ike.Info) bool {
		if i.Connection == nil || i.State != ikesa.StateEstablished {
			return true
		}
		established[i.Connection.Name]++
		for _, c := range i.Children {
			if c.Child != nil {
				installed[i.Connection.Name+"/"+c.Child.Name]++
			}
		}
		return true
	})
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := control.Connections{Connections: []control.Connection{}}
	for _, c := range g.config.Connections {
		at := slices.IndexFunc(g.config.File.Connections, func(x config.Connection) bool { return x.Name == c.Name })
		file := &g.config.File.Connections[at]
		conn := control.Connection{
			Name: c.Name, LocalAddrs: words(file.LocalAddrs), RemoteAddrs: words(file.RemoteAddrs),
			LocalAuth: file.Local.Auth, LocalID: file.Local.ID, RemoteAuth: file.Remote.Auth, RemoteID: file.Remote.ID,
			Proposals: words(c.Proposals), Priority: c.Priority, Pools: append([]string{}, c.Pools...), IKESAs: established[c.Name],
			Children: []control.ConnectionChild{},
		}
		for i, child := range c.Children {
			conn.Children = append(conn.Children, control.ConnectionChild{
				Name: child.Name, Mode: child.Mode.String(), StartAction: file.Children[i].StartAction, Proposals: words(child.Proposals),
				LocalTS: words(file.Children[i].LocalTS), RemoteTS: words(file.Children[i].RemoteTS), Installed: installed[c.Name+"/"+child.Name],
			})
		}
		out.Connections = append(out.Connections, conn)
	}
	return out
}

// figures writes the server's counters as the control tool shows them.
func figures(s ike.Stats) control.IKE {
	out := control.IKE{
		SAs: s.SAs, HalfOpen: s.HalfOpen, Received: s.Received, Sent: s.Sent, Retransmitted: s.Retransmitted, Repeated: s.Repeated,
		Established: s.Established, Rekeyed: s.Rekeyed, Ended: s.Ended, ChildrenUp: s.ChildrenUp, ChildrenRekeyed: s.ChildRekeyed,
		ChildrenRemoved: s.ChildrenDown, ChildrenFailed: s.ChildNo, Hints: s.Hints, Panics: s.Panics, Exchanges: []control.Exchanges{},
	}
	for _, x := range []message.ExchangeType{
		message.IKESAInit, message.IKEIntermediate, message.IKEAuth, message.CreateChildSA, message.IKEFollowupKE, message.Informational,
	} {
		out.Exchanges = append(out.Exchanges, control.Exchanges{Name: x.String(), Done: s.Exchanges[x], Failed: s.Failed[x]})
	}
	return out
}

// severities name how much attention a reason deserves.
var severities = map[ikesa.Severity]string{ikesa.Notice: "normal", ikesa.Warning: "warning", ikesa.Failure: "failure"}

// reasons lists everything for which IKE discards, fails or ends something.
func reasons(s ike.Stats) []control.Drop {
	out := []control.Drop{}
	for d := ike.DropNone + 1; int(d) < ike.DropCount; d++ {
		out = append(out, control.Drop{Name: d.String(), Severity: severities[d.Severity()], Packets: s.Drops[d], Sentence: d.Text(), Source: d.Section()})
	}
	for r := ikesa.ReasonNone + 1; int(r) < ikesa.ReasonCount; r++ {
		out = append(out, control.Drop{Name: r.String(), Severity: severities[r.Severity()], Packets: s.Reasons[r], Sentence: r.Text(), Source: r.Section()})
	}
	return out
}
