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
}).Parse(pageText))

// view is what the page shows.
type view struct {
	*result.File
	Noisy    string
	Unstable int
	Findings []string
	Sections []section
}

// section is a heading with plots and the rows behind them.
type section struct {
	Title, Text string
	Charts      []*chart
	Rows        []result.Row
}

// HTML returns the page of a file of results.
func HTML(f *result.File) ([]byte, error) {
	v := view{File: f, Noisy: f.Noise.Noisy()}
	for _, r := range f.Rows {
		if r.Unstable() {
			v.Unstable++
		}
	}
	x := index(f.Rows)
	for _, s := range []section{x.gateway(), x.cost(), x.suites(), x.scaling(), x.cipher(), x.wire(), x.keys(), x.others()} {
		if len(s.Rows) > 0 {
			v.Sections = append(v.Sections, s)
		}
	}
	v.Findings = x.findings()
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("making the page: %w", err)
	}
	return b.Bytes(), nil
}

// rows are a file's rows, and which of them a section has shown.
type rows struct {
	all   []result.Row
	shown []bool
}

func index(all []result.Row) *rows { return &rows{all, make([]bool, len(all))} }

// take returns the rows that keep says yes to, and marks them as shown.
func (x *rows) take(keep func(words []string, r *result.Row) bool) (list []result.Row) {
	for i := range x.all {
		if r := &x.all[i]; keep(strings.Split(r.Name, "/"), r) {
			x.shown[i] = true
			list = append(list, *r)
		}
	}
	return list
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
	slices.SortStableFunc(labels, func(a, b string) int {
		x, errA := strconv.Atoi(a)
		y, errB := strconv.Atoi(b)
		switch {
		case errA != nil && errB != nil:
			return 0
		case errA != nil:
			return 1
		case errB != nil:
			return -1
		}
		return x - y
	})
	return labels
}

// line makes a series of the rows that name gives for each label; of is what of a row is shown.
func (x *rows) line(title string, labels []string, name func(label string) string, unit, peer string, of func(*result.Row) float64) series {
	s := series{Name: title}
	for _, l := range labels {
		v, spread := math.NaN(), 0.0
		if r := x.find(name(l), unit, peer); r != nil {
			v, spread = of(r), r.Spread()
		}
		s.Values, s.Spread = append(s.Values, v), append(s.Spread, spread)
	}
	return s
}

func value(r *result.Row) float64     { return r.Value }
func peerValue(r *result.Row) float64 { return r.PeerValue }

// empty says that a series has no value.
func (s *series) empty() bool {
	return !slices.ContainsFunc(s.Values, func(v float64) bool { return !math.IsNaN(v) && v != 0 })
}

// with adds a series that has values.
func (c *chart) with(all ...series) *chart {
	for _, s := range all {
		if !s.empty() {
			c.Series = append(c.Series, s)
		}
	}
	return c
}

// drawn leaves out charts without values.
func drawn(all ...*chart) (list []*chart) {
	for _, c := range all {
		if len(c.Series) > 0 && len(c.Labels) > 0 {
			list = append(list, c)
		}
	}
	return list
}

// common says that a row is of the common case: one association, one worker, AES-128-GCM.
func common(words []string) bool { return len(words) == 3 && words[0] == "gateway" }

// gateway is the whole packet path beside its peer.
func (x *rows) gateway() section {
	list := x.take(func(words []string, r *result.Row) bool { return common(words) && r.Unit == "Mpps" })
	labels := sizes(list, 2)
	var charts []*chart
	for _, direction := range []string{"encrypt", "decrypt"} {
		name := func(l string) string { return "gateway/" + direction + "/" + l }
		peers := func(l string) bool { return x.find(name(l), "Mpps", "ipsec-secgw") != nil }
		ours := x.line("Sallyport", labels, name, "Mpps", "", value)
		for i, l := range labels {
			if peers(l) {
				r := x.find(name(l), "Mpps", "ipsec-secgw")
				ours.Values[i], ours.Spread[i] = r.Value, r.Spread()
			}
		}
		charts = append(charts, (&chart{
			Title: "Packets a second, " + direction, Unit: "Mpps", Labels: labels, Bars: true, Note: "By the size of the inner packet in bytes.",
		}).with(ours, x.line("DPDK ipsec-secgw", labels, name, "Mpps", "ipsec-secgw", peerValue)))
	}
	rate := func(of func(*result.Row) float64) func(direction, title, peer string) series {
		return func(direction, title, peer string) series {
			s := x.line(title, labels, func(l string) string { return "gateway/" + direction + "/" + l }, "Mpps", peer, of)
			for i, l := range labels {
				bytes, err := strconv.Atoi(l)
				if err != nil {
					s.Values[i] = math.NaN()
					continue
				}
				s.Values[i] *= float64(8*bytes) / 1e3
			}
			return s
		}
	}
	charts = append(charts, (&chart{Title: "Throughput", Unit: "Gbit/s", Labels: labels, Note: "Of inner IP packets."}).with(
		rate(value)("encrypt", "Sallyport, encrypt", ""), rate(value)("decrypt", "Sallyport, decrypt", ""),
		rate(peerValue)("encrypt", "ipsec-secgw, encrypt", "ipsec-secgw"), rate(peerValue)("decrypt", "ipsec-secgw, decrypt", "ipsec-secgw")))
	return section{
		"The gateway, memory to memory, on one core",
		"Policy, association, extended sequence number, replay window of 4,096 packets, AES-128-GCM, TTL, next hop and link header, with one copy of each packet on its way in. " +
			"ipsec-secgw carries the same packets on the same core in turn, in the mode that was fastest in this run, without replay window and extended numbers.",
		drawn(charts...), list,
	}
}

// cost is the time of a packet, and how much of it the cipher takes.
func (x *rows) cost() section {
	list := x.take(func(words []string, r *result.Row) bool { return common(words) && r.Unit == "ns" })
	labels := slices.DeleteFunc(sizes(list, 2), func(l string) bool { _, err := strconv.Atoi(l); return err != nil })
	var charts []*chart
	for _, direction := range []string{"encrypt", "decrypt"} {
		suffix := map[string]string{"encrypt": "", "decrypt": "/open"}[direction]
		cipher := x.line("the cipher alone", labels, func(l string) string { return "aesgcm128/go/" + l + suffix }, "ns", "", value)
		rest := x.line("everything else", labels, func(l string) string { return "gateway/" + direction + "/" + l }, "ns", "", value)
		for i, v := range cipher.Values {
			if math.IsNaN(v) {
				rest.Values[i] = math.NaN()
				continue
			}
			rest.Values[i] -= v
		}
		charts = append(charts, (&chart{
			Title: "Time of a packet, " + direction, Unit: "ns", Labels: labels, Bars: true, Stack: true,
			Note: "The cipher as it was measured alone, on texts of that size: the share of its own speed that the gateway reaches is the lower part by the whole.",
		}).with(cipher, rest))
	}
	return section{"What a packet costs", "Nanoseconds a packet on one core.", drawn(charts...), list}
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
				Title: "Suites at " + size + " bytes, " + direction, Unit: "ns", Labels: labels, Bars: true, Note: "Time of a packet on one core.",
			}).with(x.line("Sallyport, whole gateway", labels, name, "ns", "", value), x.line("standard library, ciphers alone", labels, name, "ns", "", peerValue)))
		}
	}
	return section{"Suites", "What a whole gateway takes for a packet of each suite, and what Go's standard library takes for its ciphers alone, in turn in one run.", drawn(charts...), list}
}

// scaling is what more associations and more workers do.
func (x *rows) scaling() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return words[0] == "gateway" && len(words) > 3 && (strings.HasPrefix(words[3], "associations=") || strings.HasPrefix(words[3], "workers=")) && (r.Unit == "Mpps" || r.Unit == "ns")
	})
	counts := func(what string) (labels []string) {
		labels = []string{"1"}
		for _, r := range list {
			words := strings.Split(r.Name, "/")
			if n, ok := strings.CutPrefix(words[len(words)-1], what+"="); ok && !slices.Contains(labels, n) {
				labels = append(labels, n)
			}
		}
		slices.SortFunc(labels, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
		return labels
	}
	name := func(direction, size, what string) func(string) string {
		return func(n string) string {
			if n == "1" {
				return "gateway/" + direction + "/" + size
			}
			return "gateway/" + direction + "/" + size + "/" + what + "=" + n
		}
	}
	labels := counts("associations")
	associations := &chart{Title: "Packets spread over associations", Unit: "ns", Labels: labels, Note: "Time of a packet by the number of associations."}
	for _, size := range []string{"64", "512", "1420"} {
		for _, direction := range []string{"encrypt", "decrypt"} {
			if len(labels) > 1 {
				associations.with(x.line(size+" bytes, "+direction, labels, name(direction, size, "associations"), "ns", "", value))
			}
		}
	}
	labels = counts("workers")
	workers := &chart{Title: "More workers", Unit: "Mpps", Labels: labels, Note: "All workers together, a core each."}
	if len(labels) > 1 {
		workers.with(x.line("64 bytes, encrypt", labels, name("encrypt", "64", "associations=64/workers"), "Mpps", "", value))
	}
	return section{"Scaling", "", drawn(associations, workers), list}
}

// cipher is AES-GCM alone beside others.
func (x *rows) cipher() section {
	list := x.take(func(words []string, r *result.Row) bool {
		return strings.HasPrefix(words[0], "aesgcm") && r.Unit == "ns"
	})
	var charts []*chart
	for _, bits := range []string{"128", "256"} {
		for _, direction := range []string{"", "/open"} {
			prefix := "aesgcm" + bits
			all := slices.DeleteFunc(slices.Clone(list), func(r result.Row) bool { return !strings.HasPrefix(r.Name, prefix+"/") })
			labels := sizes(all, 2)
			ours := func(l string) string { return prefix + "/go/" + l + direction }
			c := &chart{
				Title: "AES-" + bits + "-GCM, " + map[string]string{"": "seal", "/open": "open"}[direction], Unit: "ns", Labels: labels, Log: true,
				Note: "Time of a text by its size in bytes; both axes grow in steps, the left one by tenfold.",
			}
			charts = append(charts, c.with(
				x.line("Sallyport", labels, ours, "ns", "", value),
				x.line("libipsec-mb", labels, func(l string) string { return prefix + "/libipsec-mb/" + l + direction }, "ns", "libipsec-mb", peerValue),
				x.line("Go crypto/cipher", labels, ours, "ns", "Go", peerValue),
				x.line("crypto/cipher", labels, ours, "ns", "crypto/cipher", peerValue)))
		}
	}
	return section{"The cipher alone", "AES-GCM over batches of 64 packets, in place; libipsec-mb by its direct call.", drawn(charts...), list}
}

// wire is one worker over AF_XDP on veth.
func (x *rows) wire() section {
	list := x.take(func(words []string, r *result.Row) bool { return words[0] == "veth" && words[len(words)-1] != "cpu" })
	labels := sizes(slices.DeleteFunc(slices.Clone(list), func(r result.Row) bool { return strings.HasPrefix(r.Name, "veth/sender") }), 2)
	var charts []*chart
	for _, direction := range []string{"encrypt", "decrypt"} {
		name := func(l string) string { return "veth/" + direction + "/" + l }
		charts = append(charts, (&chart{Title: "One worker over AF_XDP on veth, " + direction, Unit: "Mpps", Labels: labels, Bars: true, Note: "The kernel's copies take most of the time here; hardware with zero-copy has none."}).with(
			x.line("Sallyport", labels, name, "Mpps", "", value), x.line("DPDK ipsec-secgw, net_af_xdp", labels, name, "Mpps", "ipsec-secgw", peerValue)))
	}
	return section{"On the wire", "Sender, gateway and sink are network namespaces of one machine.", drawn(charts...), list}
}

// keys is the key exchange.
func (x *rows) keys() section {
	list := x.take(func(words []string, r *result.Row) bool { return words[0] == "ike" })
	exchanges := func(kind, title string) *chart {
		var labels []string
		for _, r := range list {
			if name, ok := strings.CutPrefix(r.Name, "ike/"+kind+"/"); ok && r.Unit == "1/s" {
				labels = append(labels, name)
			}
		}
		name := func(l string) string { return "ike/" + kind + "/" + l }
		return (&chart{Title: title, Unit: "1/s", Labels: labels, Bars: true, Note: "Both ends on this machine."}).with(
			x.line("Sallyport", labels, name, "1/s", "", value), x.line("strongSwan", labels, name, "1/s", "strongSwan", peerValue))
	}
	return section{"The key exchange", "", drawn(exchanges("handshake", "Handshakes a second"), exchanges("rekey", "Child rekeys a second")), list}
}

// others are the rows that no section shows.
func (x *rows) others() section {
	var list []result.Row
	for i := range x.all {
		if !x.shown[i] {
			list = append(list, x.all[i])
		}
	}
	return section{Title: "Other figures", Rows: list}
}

// findings are the sentences at the top.
func (x *rows) findings() (all []string) {
	ratios := func(prefix, peer string, what string) {
		var words []string
		name := ""
		for i := range x.all {
			r := &x.all[i]
			if parts := strings.Split(r.Name, "/"); strings.HasPrefix(r.Name, prefix) && len(parts) == strings.Count(prefix, "/")+1 && strings.HasPrefix(r.Peer, peer) && r.Ratio > 0 {
				note := ""
				if r.Unstable() {
					note = " (unstable)"
				}
				words, name = append(words, fmt.Sprintf("%.2f× at %s bytes%s", r.Ratio, parts[len(parts)-1], note)), r.Peer
			}
		}
		if len(words) > 0 {
			if peer == "ipsec-secgw" {
				name = "DPDK's ipsec-secgw"
			}
			all = append(all, what+" "+name+": "+strings.Join(words, ", ")+".")
		}
	}
	ratios("gateway/encrypt/", "ipsec-secgw", "Encrypting on one core, memory to memory, by")
	ratios("gateway/decrypt/", "ipsec-secgw", "Decrypting on one core, memory to memory, by")
	ratios("veth/encrypt/", "ipsec-secgw", "Encrypting over AF_XDP on veth, by")
	ratios("veth/decrypt/", "ipsec-secgw", "Decrypting over AF_XDP on veth, by")
	for _, size := range []string{"64", "1420"} {
		if r := x.find("gateway/encrypt/"+size, "ns", ""); r != nil {
			all = append(all, fmt.Sprintf("A packet of %s bytes takes %s ns to encrypt, everything included.", size, number(r.Value)))
		}
	}
	if r := x.find("ike/handshake/psk-x25519", "1/s", ""); r != nil {
		all = append(all, fmt.Sprintf("%s handshakes a second with a preshared key and x25519, both ends on this machine.", number(r.Value)))
	}
	return all
}
