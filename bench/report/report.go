// Package report makes one page of a run's results: what was measured, on what, how it compares, what is missing. The page is one
// file that needs no network.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/bench/result"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"number":  number,
	"percent": func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) },
	"date":    func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
	"minutes": func(s float64) string { return (time.Duration(s) * time.Second).Round(time.Second).String() },
	"color":   func(i int) int { return i % colours },
	"join":    strings.Join,
	"memory":  func(kib uint64) float64 { return float64(kib) / (1 << 20) },
	"short":   func(commit string) string { return commit[:min(len(commit), 12)] },
}).Parse(pageText))

// view is what the page shows.
type view struct {
	*result.File
	Noisy              string
	Unstable, Withheld int
	Few                int // figures of fewer than three samples
	Findings           []string
	Ways               []way
	Sections           []section
}

// section is a heading with plots, a table and the rows behind them.
type section struct {
	Title, Text string
	Charts      []*chart
	Table       *table
	Holes       []result.Hole // that belong here
	Rows        []figure
}

// figure is a row as the page shows it.
type figure struct {
	result.Row
	Withheld            string // why the value is not shown, "" if it is
	Text, Other, Factor string // the value, the peer's and the ratio, or what is said in their place
}

// table is one that is not just rows.
type table struct {
	Head  []string
	Lines [][]cell
	Note  string
	Words bool // the last column holds words, not numbers
}

// Numeric says whether a column holds numbers.
func (t *table) Numeric(column int) bool { return column > 0 && !(t.Words && column == len(t.Head)-1) }

// cell is a text, what is said of it, and its class.
type cell struct{ Text, Title, Class string }

// HTML returns the page of a file of results.
func HTML(f *result.File) ([]byte, error) {
	v := view{File: f, Noisy: f.Noise.Noisy()}
	for _, r := range f.Rows {
		if r.Unstable() {
			v.Unstable++
		}
		if len(r.Samples) < result.SamplesMin {
			v.Few++
		}
		if _, withheld := f.Doubt(&r); withheld {
			v.Withheld++
		}
	}
	x := &rows{file: f, all: f.Rows, shown: make([]bool, len(f.Rows)), holes: f.Holes}
	for _, s := range []section{x.wire(), x.latency(), x.gateway(), x.cost(), x.suites(), x.scaling(), x.cipher(), x.keys(), x.others()} {
		if len(s.Rows) > 0 || len(s.Holes) > 0 {
			v.Sections = append(v.Sections, s)
		}
	}
	v.Findings, v.Ways = x.findings(), ways(f.Interfaces)
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("making the page: %w", err)
	}
	return b.Bytes(), nil
}

// way is how packets pass interfaces.
type way struct {
	result.Interface
	Names []string
}

// ways puts the interfaces together that packets pass in the same way.
func ways(interfaces []result.Interface) (all []way) {
	for _, p := range interfaces {
		name := p.Name
		p.Name = ""
		i := slices.IndexFunc(all, func(w way) bool { return w.Interface == p })
		if i < 0 {
			i = len(all)
			all = append(all, way{Interface: p})
		}
		all[i].Names = append(all[i].Names, name)
	}
	return all
}

// rows are a file's rows, and which of them a section has shown.
type rows struct {
	file  *result.File
	all   []result.Row
	shown []bool
	holes []result.Hole // that no section has shown
}

// take returns the rows that keep says yes to, and marks them as shown.
func (x *rows) take(keep func(words []string, r *result.Row) bool) (list []result.Row) {
	for i := range x.all {
		if r := &x.all[i]; !x.shown[i] && keep(strings.Split(r.Name, "/"), r) {
			x.shown[i] = true
			list = append(list, *r)
		}
	}
	return list
}

// missing takes the holes whose names begin with one of the words.
func (x *rows) missing(words ...string) (list []result.Hole) {
	x.holes = slices.DeleteFunc(slices.Clone(x.holes), func(h result.Hole) bool {
		first, _, _ := strings.Cut(h.Name, "/")
		if slices.Contains(words, first) {
			list = append(list, h)
			return true
		}
		return false
	})
	return list
}

// figures are rows as the page shows them.
func (x *rows) figures(list []result.Row) (all []figure) {
	for _, r := range list {
		p := figure{Row: r, Withheld: x.withheld(&r), Text: x.text(r)}
		if r.Peer != "" {
			p.Other = x.text(r.PeerRow())
		}
		if r.Ratio > 0 {
			p.Factor = x.text(r.RatioRow())
		}
		all = append(all, p)
	}
	return all
}

// text is a row's value, or what is said in its place.
func (x *rows) text(r result.Row) string {
	if x.withheld(&r) != "" {
		return "too noisy"
	}
	return number(r.Value)
}

// withheld says why a row's value is not to be shown.
func (x *rows) withheld(r *result.Row) string {
	if why, withheld := x.file.Doubt(r); withheld {
		return "not shown: " + why
	}
	return ""
}

// find returns the row of a name and unit, with a peer whose name begins so if that is asked for.
func (x *rows) find(name, unit, peer string) *result.Row {
	for i := range x.all {
		if r := &x.all[i]; r.Name == name && r.Unit == unit && (peer == "" || strings.HasPrefix(r.Peer, peer)) {
			return r
		}
	}
	return nil
}

// sizes returns the sizes in the rows' names at a place, smallest first, and words that are none last.
func sizes(list []result.Row, at int) (labels []string) {
	for _, r := range list {
		if words := strings.Split(r.Name, "/"); at < len(words) && !slices.Contains(labels, words[at]) {
			labels = append(labels, words[at])
		}
	}
	slices.SortStableFunc(labels, bySize)
	return labels
}

func bySize(a, b string) int {
	x, errA := strconv.Atoi(a)
	y, errB := strconv.Atoi(b)
	switch {
	case errA != nil && errB != nil:
		return strings.Compare(a, b)
	case errA != nil:
		return 1
	case errB != nil:
		return -1
	}
	return x - y
}

// Sides of a row.
func own(r *result.Row) result.Row  { return *r }
func peer(r *result.Row) result.Row { return r.PeerRow() }

// line makes a series of the rows that name gives for each label; side is what of a row is shown.
func (x *rows) line(title string, labels []string, name func(label string) string, unit, peer string, side func(*result.Row) result.Row) series {
	return x.series(title, labels, func(l string) *result.Row { return x.find(name(l), unit, peer) }, side)
}

// series makes a series of the rows that row gives for each label, nil for none.
func (x *rows) series(title string, labels []string, row func(label string) *result.Row, side func(*result.Row) result.Row) series {
	s := series{Name: title, Colour: colourOf(title, 0)}
	for _, l := range labels {
		r := row(l)
		if r == nil {
			s.add(math.NaN(), math.NaN(), math.NaN(), "")
			continue
		}
		v := side(r)
		if why := x.withheld(&v); why != "" {
			s.add(math.NaN(), math.NaN(), math.NaN(), why)
			continue
		}
		low, high := v.Ends()
		mark := ""
		if v.Unstable() {
			why, _ := x.file.Doubt(&v)
			mark = "unstable: " + why
		}
		s.add(v.Value, low, high, mark)
	}
	return s
}

// bits makes a series of packets a second one of Gbit/s of inner packets; mean gives a label's bytes, NaN if that is not known.
func (s series) bits(labels []string, mean func(label string) float64) series {
	for i, l := range labels {
		s.scaled(i, 8*mean(l)/1e3)
	}
	return s
}

// number of bytes that a label names; of mixes, what their rows say.
func meanBytes(list []result.Row) func(label string) float64 {
	return func(label string) float64 {
		for _, r := range list {
			if r.Parameters.Size == label && r.Parameters.Bytes > 0 {
				return r.Parameters.Bytes
			}
		}
		if n, err := strconv.Atoi(label); err == nil {
			return float64(n)
		}
		return math.NaN()
	}
}

const acrossSizes = "inner IP packet, bytes"

// common says that a row is of the common case: one association, one worker, AES-128-GCM.
func common(words []string) bool { return len(words) == 3 && words[0] == "gateway" }

// gateway is the whole packet path beside its peer.
func (x *rows) gateway() section {
	list := x.take(func(words []string, r *result.Row) bool { return common(words) && r.Unit == "Mpps" })
	labels := sizes(list, 2)
	var charts []*chart
	throughput := &chart{Title: "Throughput of inner packets", Unit: "Gbit/s", Across: acrossSizes, Labels: labels, Bars: true}
	mean := meanBytes(list)
	for k, direction := range []string{"encrypt", "decrypt"} {
		name := func(l string) string { return "gateway/" + direction + "/" + l }
		ours := x.series("Sallyport", labels, func(l string) *result.Row {
			if r := x.find(name(l), "Mpps", "ipsec-secgw"); r != nil {
				return r // measured in turn with the peer
			}
			return x.find(name(l), "Mpps", "")
		}, own)
		charts = append(charts, (&chart{
			Title: "Packets a second, " + direction, Unit: "Mpps", Labels: labels, Across: acrossSizes, Bars: true,
		}).with(ours, x.line("DPDK ipsec-secgw", labels, name, "Mpps", "ipsec-secgw", peer)))
		bits := x.line("Sallyport, "+direction, labels, name, "Mpps", "", own).bits(labels, mean)
		bits.Colour = 2 * k
		throughput.with(bits)
	}
	return section{
		"The gateway, memory to memory, on one core",
		"What a core does when no network card or kernel stands in the way. Policy, association, extended sequence number, replay window of 4,096 packets, AES-128-GCM, TTL, next hop and link header, with one copy of each packet on its way in. " +
			"ipsec-secgw carries the same packets on the same core in turn, in the mode that was fastest in this run, without replay window and extended numbers.",
		drawn(append(charts, throughput)...), nil, x.missing("peers", "pipeline"), x.figures(list),
	}
}

// gigahertz is the clock that was measured beside the cipher, else what the kernel names.
func (x *rows) gigahertz() float64 {
	var all []float64
	for i := range x.all {
		if r := &x.all[i]; r.Unit == "cycles" && r.Value > 0 {
			if ns := x.find(strings.TrimSuffix(r.Name, "/cycles"), "ns", ""); ns != nil && ns.Value > 0 {
				all = append(all, r.Value/ns.Value)
			}
		}
	}
	if len(all) == 0 {
		return x.file.Host.GHz()
	}
	return result.Median(all)
}

// cost is the time of a packet, and how much of it the cipher takes.
func (x *rows) cost() section {
	list := x.take(func(words []string, r *result.Row) bool { return common(words) && r.Unit == "ns" })
	labels := slices.DeleteFunc(sizes(list, 2), func(l string) bool { _, err := strconv.Atoi(l); return err != nil })
	mean, ghz := meanBytes(list), x.gigahertz()
	var charts []*chart
	share := &chart{Title: "Share of the cipher's own speed", Unit: "%", Labels: labels, Across: acrossSizes, Bars: true,
		Note: "The time of the cipher alone on a text of that size, by the time of the whole packet. 100 % would be a gateway that does nothing but encrypt."}
	perByte := &chart{Title: "Cost of a byte", Unit: "cycles", Labels: labels, Across: acrossSizes, Log: true, Note: "Of the inner packet, everything included."}
	t := &table{Head: []string{"direction", "bytes", "ns a packet", "cycles a packet", "ns a byte", "cycles a byte", "of these the cipher, ns", "share of its speed"}}
	for k, direction := range []string{"encrypt", "decrypt"} {
		suffix := map[string]string{"encrypt": "", "decrypt": "/open"}[direction]
		alone := func(l string) string { return "aesgcm128/go/" + l + suffix }
		cipher := x.line("the cipher alone", labels, alone, "ns", "", own)
		whole := x.line("everything else", labels, func(l string) string { return "gateway/" + direction + "/" + l }, "ns", "", own)
		rest := whole
		rest.Values, rest.Colour = slices.Clone(whole.Values), 5
		stacked := cipher // where there is no whole, a part of it would look like one
		stacked.Values = slices.Clone(cipher.Values)
		shares, bytes := series{Name: direction, Colour: 2 * k}, series{Name: direction, Colour: 2 * k}
		for i, l := range labels {
			v, c := whole.Values[i], cipher.Values[i]
			rest.Values[i] -= c
			if math.IsNaN(rest.Values[i]) {
				stacked.Values[i] = math.NaN()
			}
			nan := math.NaN()
			shares.add(100*c/v, nan, nan, whole.Marks[i])
			bytes.add(v*ghz/mean(l), nan, nan, whole.Marks[i])
			if !math.IsNaN(v) {
				of := "–"
				if !math.IsNaN(c) {
					of = fmt.Sprintf("%.0f %%", 100*c/v)
				}
				t.Lines = append(t.Lines, plainCells(direction, l, number(v), number(v*ghz), number(v/mean(l)), number(v*ghz/mean(l)), number(c), of))
			}
		}
		charts = append(charts, (&chart{
			Title: "Time of a packet, " + direction, Unit: "ns", Labels: labels, Across: acrossSizes, Bars: true, Stack: true,
		}).with(stacked, rest))
		share.with(shares)
		perByte.with(bytes)
	}
	if len(t.Lines) == 0 {
		t = nil
	}
	return section{"What a packet costs", fmt.Sprintf("On one core, memory to memory, with AES-128-GCM. Cycles are those of a clock of %.2f GHz.", ghz),
		drawn(append(charts, share, perByte)...), t, nil, x.figures(list)}
}

func plainCells(texts ...string) (line []cell) {
	for _, t := range texts {
		class := "n"
		if len(line) == 0 {
			class = ""
		}
		line = append(line, cell{t, "", class})
	}
	return line
}

// suites are the ciphers beside the standard library's.
func (x *rows) suites() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return words[0] == "gateway" && words[len(words)-1] == "library" && r.Ratio > 0
	})
	var labels []string
	for _, r := range list {
		if !slices.Contains(labels, r.Parameters.Suite) {
			labels = append(labels, r.Parameters.Suite)
		}
	}
	var charts []*chart
	for _, size := range []string{"64", "1420"} {
		for _, direction := range []string{"encrypt", "decrypt"} {
			name := func(suite string) string {
				for _, r := range list {
					if p := r.Parameters; p.Suite == suite && p.Direction == direction && p.Size == size {
						return r.Name
					}
				}
				return ""
			}
			charts = append(charts, (&chart{
				Title: "Suites at " + size + " bytes, " + direction, Unit: "ns", Labels: labels, Bars: true, Lying: true, Note: "Time of a packet on one core; less is better.",
			}).with(x.line("Sallyport, whole gateway", labels, name, "ns", "", own), x.line("standard library, ciphers alone", labels, name, "ns", "", peer)))
		}
	}
	return section{"Suites", "What a whole gateway takes for a packet of each suite, and what Go's standard library takes for its ciphers alone, in turn in one run.", drawn(charts...), nil, x.missing("suites"), x.figures(list)}
}

// scaling is what more associations and more workers do.
func (x *rows) scaling() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return words[0] == "gateway" && len(words) > 3 && (r.Unit == "Mpps" || r.Unit == "ns" || r.Unit == "×") &&
			(strings.HasPrefix(words[3], "associations=") || strings.HasPrefix(words[3], "workers="))
	})
	counts := func(what string) (labels []string) {
		labels = []string{"1"}
		for _, r := range list {
			words := strings.Split(r.Name, "/")
			if n, ok := strings.CutPrefix(words[len(words)-1], what+"="); ok && !slices.Contains(labels, n) {
				labels = append(labels, n)
			}
		}
		slices.SortFunc(labels, bySize)
		return labels
	}
	name := func(direction, size, what string) func(string) string {
		return func(n string) string { return "gateway/" + direction + "/" + size + "/" + what + "=" + n }
	}
	labels := counts("associations")
	associations := &chart{Title: "By tunnels, in memory", Unit: "ns", Labels: labels, Across: "associations that the packets spread over", Note: "Time of a packet."}
	colour := 0
	for _, size := range []string{"64", "512", "1420"} {
		for _, direction := range []string{"encrypt", "decrypt"} {
			if s := x.line(size+" bytes, "+direction, labels, func(n string) string {
				if n == "1" {
					return "gateway/" + direction + "/" + size
				}
				return name(direction, size, "associations")(n)
			}, "ns", "", own); len(labels) > 1 {
				s.Colour = colour
				associations.with(s)
			}
			colour++
		}
	}
	labels = counts("workers")
	workers := &chart{Title: "By workers, in memory", Unit: "Mpps", Labels: labels, Bars: true, Across: "workers, a core each, 64 tunnels", Note: "All workers together."}
	if len(labels) > 1 {
		for k, size := range []string{"64", "1420"} {
			for j, direction := range []string{"encrypt", "decrypt"} {
				s := x.line(size+" bytes, "+direction, labels, func(n string) string {
					if n == "1" { // a single worker is not named
						return name(direction, size, "associations")("64")
					}
					return name(direction, size, "associations=64/workers")(n)
				}, "Mpps", "", own)
				s.Colour = 2*k + j
				workers.with(s)
			}
		}
	}
	wired, tunnels := x.tunnels()
	return section{"Scaling", "", drawn(associations, workers, tunnels), nil, x.missing("workers", "associations", "million", "tunnels", "churn"), x.figures(append(list, wired...))}
}

// tunnels is PDR by the number of tunnels.
func (x *rows) tunnels() ([]result.Row, *chart) {
	list := x.take(func(words []string, r *result.Row) bool { return words[0] == "wire" && r.Parameters.Tunnels > 1 })
	var labels []string
	for _, r := range list {
		if n := strconv.Itoa(r.Parameters.Tunnels); r.Parameters.Measure == "pdr" && !slices.Contains(labels, n) {
			labels = append(labels, n)
		}
	}
	if len(labels) > 0 && !slices.Contains(labels, "1") {
		labels = append(labels, "1")
	}
	slices.SortFunc(labels, bySize)
	c := &chart{Title: "By tunnels, on the wire", Unit: "Mpps", Labels: labels, Across: "tunnels, one worker", Note: "PDR: the rate at which 0.5 % is lost."}
	for k, direction := range []string{"encrypt", "decrypt"} {
		for j, size := range []string{"64", "1420", "imix"} {
			s := x.series(size+" bytes, "+direction, labels, func(n string) *result.Row {
				return x.cell("pdr", direction, size, n, "")
			}, own)
			s.Colour = 2*j + k
			c.with(s)
		}
	}
	return list, c
}

// cell returns the row of one cell of the wire's matrix beside a peer, "" for any: then the one of the most samples.
func (x *rows) cell(measure, direction, size, tunnels, beside string) (found *result.Row) {
	for i := range x.all {
		r := &x.all[i]
		if p := r.Parameters; strings.HasPrefix(r.Name, "wire/") && p.Measure == measure && p.Direction == direction && p.Size == size &&
			strconv.Itoa(p.Tunnels) == tunnels && (beside == "" || r.Peer == beside) && (found == nil || len(r.Samples) > len(found.Samples)) {
			found = r
		}
	}
	return found
}

// cipher is AES-GCM alone beside others.
func (x *rows) cipher() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return strings.HasPrefix(words[0], "aesgcm") && (r.Unit == "ns" || r.Unit == "cycles")
	})
	var charts []*chart
	for _, bits := range []string{"128", "256"} {
		for _, direction := range []string{"", "/open"} {
			prefix := "aesgcm" + bits
			all := slices.DeleteFunc(slices.Clone(list), func(r result.Row) bool { return !strings.HasPrefix(r.Name, prefix+"/") })
			labels := sizes(all, 2)
			ours := func(l string) string { return prefix + "/go/" + l + direction }
			standard := x.line("Go crypto/cipher", labels, ours, "ns", "Go", peer)
			if standard.empty() {
				standard = x.line("Go crypto/cipher", labels, ours, "ns", "crypto/cipher", peer)
			}
			c := &chart{
				Title: "AES-" + bits + "-GCM, " + map[string]string{"": "seal", "/open": "open"}[direction], Unit: "ns", Labels: labels, Across: "text, bytes", Log: true,
				Note: "Time of a text; the axis grows tenfold in steps.",
			}
			charts = append(charts, c.with(x.line("Sallyport", labels, ours, "ns", "", own),
				x.line("libipsec-mb", labels, func(l string) string { return prefix + "/libipsec-mb/" + l + direction }, "ns", "libipsec-mb", peer), standard))
		}
	}
	return section{"The cipher alone", "AES-GCM over batches of 64 packets, in place; libipsec-mb by its direct call.", drawn(charts...), nil, x.missing("crypto"), x.figures(list)}
}

// keys is the key exchange.
func (x *rows) keys() section {
	list := x.take(func(words []string, r *result.Row) bool { return words[0] == "ike" })
	exchanges := func(kind, title string) *chart {
		var labels, names []string
		for _, r := range list {
			if name, ok := strings.CutPrefix(r.Name, "ike/"+kind+"/"); ok && r.Unit == "1/s" && !strings.Contains(name, "/") {
				names = append(names, name)
				labels = append(labels, strings.ReplaceAll(name, "mlkem768", "mlkem"))
			}
		}
		row := func(peer string) func(l string) *result.Row {
			return func(l string) *result.Row { return x.find("ike/"+kind+"/"+names[slices.Index(labels, l)], "1/s", peer) }
		}
		return (&chart{Title: title, Unit: "1/s", Labels: labels, Bars: true, Note: "Both ends on this machine."}).with(
			x.series("Sallyport", labels, row(""), own), x.series("strongSwan", labels, row("strongSwan"), peer))
	}
	return section{"The key exchange", "", drawn(exchanges("handshake", "Handshakes a second"), exchanges("rekey", "Child rekeys a second")), nil, x.missing("ike"), x.figures(list)}
}

// others are the rows and holes that no section shows.
func (x *rows) others() section {
	list := x.take(func([]string, *result.Row) bool { return true })
	return section{Title: "Other figures", Rows: x.figures(list), Holes: x.holes}
}
