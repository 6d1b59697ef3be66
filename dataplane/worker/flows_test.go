package worker

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// snapshots makes random policies over a few networks of both families, so that they change under flows that stay.
type snapshots struct{ *rand.Rand }

func (r *snapshots) network() netip.Prefix {
	if r.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(r.IntN(4)), 0}), 22+r.IntN(11)).Masked()
	}
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(r.IntN(4))}
	return netip.PrefixFrom(netip.AddrFrom16(a), 124+r.IntN(5)).Masked()
}

func (r *snapshots) policies(t *testing.T, n int) *spd.Table {
	var list []spd.Policy
	for len(list) < n {
		local, remote := r.network(), r.network()
		if local.Addr().Is4() != remote.Addr().Is4() {
			continue
		}
		list = append(list, spd.Policy{
			Name: "p", Action: spd.Action(r.IntN(3)), Tunnel: r.Uint32N(5), Negotiated: true, // so that they may contradict
			Selectors: []spd.Selector{{
				Local: []spd.Range{spd.RangeOf(local)}, Remote: []spd.Range{spd.RangeOf(remote)}, Proto: []uint8{0, 17}[r.IntN(2)],
				LocalPorts: spd.AnyPorts, RemotePorts: []spd.PortRange{spd.AnyPorts, {First: 1, Last: 2}}[r.IntN(2)],
			}},
		})
	}
	table, err := spd.Build(list)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func (r *snapshots) flow() packet.Flow {
	for {
		src, dst := r.network().Addr(), r.network().Addr()
		if src.Is4() != dst.Is4() {
			continue
		}
		f := packet.FlowBetween(src, dst, []uint8{6, 17, 50}[r.IntN(3)])
		if f.Proto != 50 && r.IntN(4) > 0 {
			f.SrcPort, f.DstPort, f.Flags = uint16(r.IntN(3)), uint16(r.IntN(3)), packet.FlagPorts
		}
		return f
	}
}

// TestFlowMemoryIsNeverOlderThanTheTables asks the memory and the tables about the same flows, while both tables are
// replaced, grow and shrink: policies and the set of endpoints. 256 places instead of the usual number make flows push each other out.
func TestFlowMemoryIsNeverOlderThanTheTables(t *testing.T) {
	f, err := newFlows(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.shift = 64 - 8
	seed := rand.Uint64()
	r := &snapshots{rand.New(rand.NewPCG(seed, 0))}
	tables := &Tables{SPD: r.policies(t, 1), Endpoints: &AddrSet{}}
	matched := 0
	for n := range 200000 {
		switch r.IntN(500) {
		case 0:
			tables = &Tables{SPD: r.policies(t, 1+r.IntN(20)), Endpoints: tables.Endpoints}
		case 1:
			tables = &Tables{SPD: tables.SPD, Endpoints: &AddrSet{}}
		case 2:
			if f.generation > 1 && r.IntN(10) == 0 {
				f.generation = ^uint32(0) // the next one wraps
			}
		}
		f.follow(tables)
		flow := r.flow()
		known := f.policy(f.place(&flow), &flow)
		index, match := tables.SPD.Outbound(&flow)
		if known.match != match {
			t.Fatalf("seed %d, flow %d: %v, the policies say %v", seed, n, known.match, match)
		}
		if match != spd.NoMatch {
			matched++
			if p := tables.SPD.Policy(index); known.action != p.Action || known.protects() && known.way != p.Tunnel {
				t.Fatalf("seed %d, flow %d: %v into tunnel %d, the policies say %v, %d", seed, n, known.action, known.way, p.Action, p.Tunnel)
			}
		}
	}
	if matched == 0 {
		t.Error("no flow matched a policy")
	}
}

// TestFlowsAreManyWhenTheyAre: flows are asked for ahead only while there are many policies and many flows, and anew after the policies changed.
func TestFlowsAreManyWhenTheyAre(t *testing.T) {
	f, err := newFlows(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	// One that gives all these flows room: with one in ten some are driven out and asked for again.
	f.seed = [4]uint64{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93}
	r := &snapshots{rand.New(rand.NewPCG(1, 2))}
	tables := &Tables{SPD: r.policies(t, 1), Endpoints: &AddrSet{}}
	ask := func(flows int) bool {
		f.follow(tables)
		for n := range flows {
			flow := packet.Flow{Version: 4, Proto: packet.ProtoUDP, SrcPort: uint16(n), Flags: packet.FlagPorts}
			f.policy(f.place(&flow), &flow)
		}
		f.follow(tables)
		return f.many
	}
	if tables.SPD.Indexed() || ask(manyFlows) {
		t.Error("flows are many for few policies")
	}
	for n := 64; !tables.SPD.Indexed(); n *= 2 {
		tables = &Tables{SPD: r.policies(t, n), Endpoints: tables.Endpoints}
	}
	for range 3 { // the same ones again are not more
		if ask(manyFlows - 1) {
			t.Errorf("%d flows are many", manyFlows-1)
		}
	}
	if !ask(manyFlows) {
		t.Errorf("%d flows are not many", manyFlows)
	}
	tables = &Tables{SPD: r.policies(t, tables.SPD.Len()), Endpoints: tables.Endpoints}
	if ask(1) {
		t.Error("flows are many that the policies were not asked about")
	}
}
