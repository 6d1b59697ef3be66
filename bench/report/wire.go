package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sallyport/bench/result"
)

// directions in the order of the page, and what their figures are of.
var directions = []struct{ name, title string }{
	{"encrypt", "encrypt"}, {"decrypt", "decrypt"}, {"both", "encrypt and decrypt, two gateways on one CPU"},
}

// wire is one worker over AF_XDP on veth.
func (x *rows) wire() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return words[0] == "wire" && r.Parameters.Tunnels <= 1 && r.Parameters.Measure != "latency" || words[0] == "veth"
	})
	var charts []*chart
	mean := meanBytes(list)
	for _, d := range directions {
		labels := x.wireSizes(list, d.name)
		pdr := &chart{Title: "Packets a second at PDR, " + d.title, Unit: "Mpps", Labels: labels, Across: acrossSizes, Bars: true}
		bits := &chart{Title: "Throughput at PDR, " + d.title, Unit: "Gbit/s", Labels: labels, Across: acrossSizes, Bars: true}
		for _, s := range x.carriers(list, d.name, labels) {
			pdr.with(s)
			bits.with(s.clone().bits(labels, mean))
		}
		charts = append(charts, pdr, bits)
	}
	for _, d := range directions[:2] {
		charts = append(charts, x.lossCurve(list, d.name, d.title))
	}
	charts = append(charts, x.overload(list)...)
	return section{
		"On the wire: one worker over AF_XDP on veth",
		"Sender, gateway and sink are network namespaces of one machine, the sender on one CPU and the gateway's worker on another. PDR is the rate at which at most 0.5 % is lost, NDR that at which nothing is, " +
			"searched for by the ideas of MLRsearch. For decryption the sender seals every packet afresh. veth knows only AF_XDP's copy mode, so most of the time here is the kernel's: " +
			"these figures compare gateways as users of AF_XDP, and say little about hardware. The sender's own most, into a sink that drops, is the rig's ceiling.",
		drawn(charts...), x.wireTable(list), x.missing("wire", "veth"), x.figures(list),
	}
}

func (x *rows) wireSizes(list []result.Row, direction string) (labels []string) {
	for _, r := range list {
		if p := r.Parameters; p.Direction == direction && p.Measure == "pdr" && !slices.Contains(labels, p.Size) {
			labels = append(labels, p.Size)
		}
	}
	slices.SortStableFunc(labels, bySize)
	return labels
}

// carriers are ours, each peer and the rig's ceiling, by size.
func (x *rows) carriers(list []result.Row, direction string, labels []string) []series {
	all := []series{x.series("Sallyport", labels, func(l string) *result.Row { return x.cell("pdr", direction, l, "1", "") }, own)}
	for _, name := range x.beside(list, direction) {
		all = append(all, x.series(name, labels, func(l string) *result.Row { return x.cell("pdr", direction, l, "1", name) }, peer))
	}
	return append(all, x.series("the sender's own most", labels, func(l string) *result.Row { return x.ceiling(direction, l) }, own))
}

// beside are the peers of a direction, in the order of the rows.
func (x *rows) beside(list []result.Row, direction string) (names []string) {
	for _, r := range list {
		if p := r.Parameters; p.Measure == "pdr" && p.Direction == direction && r.Peer != "" && !slices.Contains(names, r.Peer) {
			names = append(names, r.Peer)
		}
	}
	return names
}

// ceiling is that of the sender that searches: ours, else any that can be paced.
func (x *rows) ceiling(direction, size string) *result.Row {
	for _, by := range []string{"xsk", "asavie"} {
		for i := range x.all {
			r := &x.all[i]
			if p := r.Parameters; p.Measure == "ceiling" && p.By == by && (p.Direction == direction || direction == "both" && p.Direction == "encrypt") && p.Size == size && p.Tunnels <= 1 {
				return r
			}
		}
	}
	return nil
}

func (s series) clone() series {
	s.Values, s.Low, s.High, s.Marks = slices.Clone(s.Values), slices.Clone(s.Low), slices.Clone(s.High), slices.Clone(s.Marks)
	return s
}

// lossFloor is the least loss of the curves' axis, in percent.
const lossFloor = 0.001

// lossCurve is what was lost at each load that our last search tried.
func (x *rows) lossCurve(list []result.Row, direction, title string) *chart {
	c := &chart{Title: "Loss by load, " + title, Unit: "% lost", Across: "Mpps offered", Log: true, Floor: lossFloor, Limit: 0.5, LimitName: "PDR: 0.5 %",
		Note: "All trials at one load of the last search together, but for the first short ones. Nothing lost is drawn on the floor."}
	for k, size := range x.wireSizes(list, direction) {
		r := x.cell("pdr", direction, size, "1", "")
		if r == nil || len(r.Loss) == 0 {
			continue
		}
		s := series{Name: sizeName(size), Colour: k}
		longest := 0.0
		for _, p := range r.Loss {
			longest = max(longest, p.Seconds)
		}
		for _, p := range r.Loss {
			if p.Seconds < longest/4 {
				continue // the first short trials, which only show the way
			}
			s.X = append(s.X, p.Offered)
			s.add(max(lossFloor, 100*p.Loss), math.NaN(), math.NaN(), "")
		}
		c.Series = append(c.Series, s)
	}
	return c
}

func sizeName(size string) string {
	if strings.Trim(size, "0123456789") == "" {
		return size + " bytes"
	}
	return size
}

// overload is what one worker carries that is offered far more than it can, from the verb veth.
func (x *rows) overload(list []result.Row) (charts []*chart) {
	for _, direction := range []string{"encrypt", "decrypt"} {
		name := func(l string) string { return "veth/" + direction + "/" + l }
		labels := sizes(slices.DeleteFunc(slices.Clone(list), func(r result.Row) bool { return !strings.HasPrefix(r.Name, "veth/"+direction+"/") }), 2)
		charts = append(charts, (&chart{Title: "Overloaded, " + direction, Unit: "Mpps", Labels: labels, Across: acrossSizes, Bars: true}).with(
			x.line("Sallyport", labels, name, "Mpps", "", own), x.line("DPDK ipsec-secgw, net_af_xdp", labels, name, "Mpps", "ipsec-secgw", peer)))
	}
	return charts
}

// wireTable has a line for each cell of the matrix.
func (x *rows) wireTable(list []result.Row) *table {
	t := &table{
		Words: true,
		Head:  []string{"direction", "bytes", "ceiling", "NDR", "PDR", "Gbit/s at PDR"},
		Note: "Mpps. Below NDR and PDR stand the bounds of the last search: the highest load that met the goal and the lowest that did not. A ratio is our PDR by the peer's, searches taken in turn, with the spread of the single ratios, or how few there are. " +
			"What was dropped counts all packets of the last search, those offered far above PDR too.",
	}
	var peers []string
	for _, d := range directions {
		for _, name := range x.beside(list, d.name) {
			if !slices.Contains(peers, name) {
				peers = append(peers, name)
			}
		}
	}
	for _, p := range peers {
		t.Head = append(t.Head, "÷ "+p)
	}
	t.Head = append(t.Head, "dropped, last search")
	for _, d := range directions {
		for _, size := range x.wireSizes(list, d.name) {
			pdr := x.cell("pdr", d.name, size, "1", "")
			line := []cell{{Text: d.name}, {Text: size, Class: "n"}, x.value(x.ceiling(d.name, size)),
				x.bounded(x.cell("ndr", d.name, size, "1", "")), x.bounded(pdr)}
			bits := *pdr
			bits.Value *= 8 * pdr.Parameters.Bytes / 1e3
			bits.Samples = nil
			for _, v := range pdr.Samples {
				bits.Samples = append(bits.Samples, v*8*pdr.Parameters.Bytes/1e3)
			}
			line = append(line, x.value(&bits))
			for _, name := range peers {
				line = append(line, x.ratio(x.cell("pdr", d.name, size, "1", name)))
			}
			t.Lines = append(t.Lines, append(line, dropped(pdr)))
		}
	}
	if len(t.Lines) == 0 {
		return nil
	}
	return t
}

// value is a row's in a cell, with its spread behind.
func (x *rows) value(r *result.Row) cell {
	if r == nil || len(r.Samples) == 0 {
		return cell{"–", "not measured", "n"}
	}
	if why := x.withheld(r); why != "" {
		return cell{"too noisy", why, "n unstable"}
	}
	c := cell{number(r.Value), fmt.Sprintf("median of %d, spread %.0f %%", len(r.Samples), 100*r.Spread()), "n"}
	if r.Unstable() {
		c.Text += "\nunstable"
		c.Class += " unstable"
	}
	return c
}

// bounded is a searched value with its bounds.
func (x *rows) bounded(r *result.Row) cell {
	c := x.value(r)
	if r != nil && r.Bounds != nil && x.withheld(r) == "" {
		upper := number(r.Bounds.Upper)
		if r.Bounds.Upper == 0 {
			upper = "most"
		}
		c.Text += fmt.Sprintf("\n%s–%s", number(r.Bounds.Lower), upper)
		c.Title += fmt.Sprintf("; last search: %d trials, %d of them taken again because other processes ran; %s", r.Bounds.Trials, r.Bounds.Disturbed, r.Bounds.Goal)
	}
	return c
}

// ratio is that of a row to its peer, with the spread of the ratios of searches in turn.
func (x *rows) ratio(r *result.Row) cell {
	if r == nil || r.Ratio == 0 {
		return cell{"–", "not measured", "n"}
	}
	ratio := r.RatioRow()
	c := x.value(&ratio)
	switch n := len(ratio.Samples); {
	case n < 3:
		c.Text += fmt.Sprintf("\nof %d", n) // which have no spread
	case x.withheld(&ratio) == "":
		c.Text += fmt.Sprintf("\n± %.0f %%", 50*ratio.Spread())
	}
	return c
}

// dropped names the reasons, the most frequent first.
func dropped(r *result.Row) cell {
	drops := slices.SortedFunc(slices.Values(r.Drops), func(a, b result.Drop) int { return cmp.Compare(b.Packets, a.Packets) })
	var words []string
	for _, d := range drops {
		words = append(words, number(float64(d.Packets))+" "+d.Name)
	}
	c := cell{Text: strings.Join(words, ", "), Class: "wide"}
	if len(words) == 0 {
		c.Text = "nothing"
	}
	if r.Bounds != nil && r.Bounds.Packets > 0 {
		c.Title = fmt.Sprintf("of %s packets", number(float64(r.Bounds.Packets)))
	}
	return c
}

// latency is how long packets are on their way.
func (x *rows) latency() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return words[0] == "wire" && r.Parameters.Measure == "latency"
	})
	var charts []*chart
	for _, d := range directions {
		cells := slices.DeleteFunc(slices.Clone(list), func(r result.Row) bool { return r.Parameters.Direction != d.name || r.Parameters.Tunnels > 1 })
		slices.SortStableFunc(cells, func(a, b result.Row) int { return bySize(a.Parameters.Size, b.Parameters.Size) })
		for _, r := range cells {
			if len(r.Latency) > 0 {
				charts = append(charts, latencyChart(&r, fmt.Sprintf("%s, %s", sizeName(r.Parameters.Size), d.title)))
			}
		}
	}
	return section{
		"Latency on the wire",
		"From the moment at which a packet was due to leave the sender to its arrival at the sink, so that a sender that is held up hides nothing. A point is the median of several rigs, its whisker reaches from the least of them to the largest; " +
			"a percentile is drawn where ten packets of a rig lie beyond it. The kernel's and the machine's own delays are in it: what a virtual machine does to its CPUs shows in the tail, where rigs differ most. " +
			"The rows are of the median and the 99th percentile at 50 % of PDR.",
		drawn(charts...), nil, nil, x.figures(list),
	}
}

// latencyChart has a line for each load, over the percentiles that any of them has.
func latencyChart(r *result.Row, title string) *chart {
	c := &chart{Title: title, Unit: "µs", Log: true, Across: "percentile"}
	var percents []float64
	for _, at := range r.Latency {
		for _, p := range at.Percentiles {
			if !slices.Contains(percents, p.Percent) {
				percents = append(percents, p.Percent)
			}
		}
	}
	slices.Sort(percents)
	for _, p := range percents {
		c.Labels = append(c.Labels, percentileName(p))
	}
	for k, at := range r.Latency {
		s := series{Name: fmt.Sprintf("%s (%s Mpps)", at.Load, number(at.Offered)), Colour: k}
		for _, p := range percents {
			none := math.NaN()
			v, low, high := none, none, none
			if i := slices.IndexFunc(at.Percentiles, func(q result.Percentile) bool { return q.Percent == p }); i >= 0 {
				v = at.Percentiles[i].Microseconds
				if at.Percentiles[i].High > 0 {
					low, high = at.Percentiles[i].Low, at.Percentiles[i].High
				}
			}
			s.add(v, low, high, "")
		}
		c.with(s)
	}
	return c
}

func percentileName(p float64) string {
	if p == 100 {
		return "max"
	}
	return "p" + strconv.FormatFloat(p, 'g', -1, 64)
}
