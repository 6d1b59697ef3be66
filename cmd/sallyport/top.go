package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/control"
)

// sample is everything top shows, at one moment.
type sample struct {
	at       time.Time
	status   control.Status
	counters control.Counters
	sas      control.SAs
	err      error
}

type tick struct{}

// Tabs of top.
const (
	tabAssociations = iota
	tabWorkers
	tabDrops
	tabIKE
	tabCount
)

var tabNames = [tabCount]string{"associations", "workers", "drops", "IKE SAs"}

// emptyTables are what a table without rows says.
var emptyTables = [tabCount]string{"no associations", "no workers", "no packet was dropped", "no IKE SAs"}

// columns that each tab can be sorted by.
var sortNames = [tabCount][]string{{"packets/s", "name", "drops"}, {"worker", "packets/s", "busy"}, {"packets/s", "total", "name"}, {"name", "age"}}

// historyMax is how many intervals the sparklines show at most.
const historyMax = 60

// model is the state of the viewer. It does no input or output of its own.
type model struct {
	fetch         func() sample
	interval      time.Duration
	width, height int
	last, now     sample
	in, out       []float64 // bit/s of the last intervals, the newest last
	tab, offset   int
	sort          [tabCount]int
	paused, plain bool
}

func (t *tool) topCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	c := &cobra.Command{
		Use: "top", Short: "Watch throughput, drops, associations and workers live",
		Long: "Top shows packets/s and throughput live. Keys: tab or 1-4 choose a table, s sorts, up and down scroll,\nspace pauses, q quits. With --once, or when the output is not a terminal, it prints one interval as text.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return fmt.Errorf("%wthe interval is at least 100ms", errUsage)
			}
			m := model{fetch: func() sample { return t.sample(cmd.Context()) }, interval: interval, width: 80, height: 24, plain: os.Getenv("NO_COLOR") != ""}
			first := m.fetch()
			if first.err != nil {
				return first.err
			}
			m = m.take(first)
			if once || !terminal(t.out) {
				select {
				case <-time.After(interval):
				case <-cmd.Context().Done():
					return nil
				}
				m = m.take(m.fetch())
				m.plain, m.height = true, 0
				for m.tab = range tabCount {
					fmt.Fprintln(t.out, m.render())
				}
				return m.now.err
			}
			_, err := tea.NewProgram(m, tea.WithContext(cmd.Context()), tea.WithOutput(t.out)).Run()
			return err
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print one interval as text and exit")
	c.Flags().DurationVar(&interval, "interval", time.Second, "time between two readings")
	return c
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (t *tool) sample(ctx context.Context) (s sample) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := control.NewClient(t.path())
	s.at = time.Now()
	for _, q := range []struct {
		verb string
		out  any
	}{{control.VerbStatus, &s.status}, {control.VerbCounters, &s.counters}, {control.VerbSAs, &s.sas}} {
		if _, s.err = c.Do(ctx, q.verb, nil, q.out); s.err != nil {
			return s
		}
	}
	return s
}

// take makes s the newest sample; a failed one keeps the figures and shows the error.
func (m model) take(s sample) model {
	if s.err != nil {
		m.now.err = s.err
		return m
	}
	m.last, m.now = m.now, s
	if !m.last.at.IsZero() {
		now, last := m.now.counters.Totals, m.last.counters.Totals
		m.in = keep(m.in, 8*m.rate(now.BytesIn, last.BytesIn))
		m.out = keep(m.out, 8*m.rate(now.BytesOut, last.BytesOut))
	}
	return m
}

// keep returns a history with one more value. It shares nothing with the old one: models are values.
func keep(history []float64, v float64) []float64 {
	history = append(slices.Clone(history), v)
	return history[max(0, len(history)-historyMax):]
}

// sparkline draws the last width values of a history between zero and its largest.
func sparkline(history []float64, width int) string {
	const steps = "▁▂▃▄▅▆▇█"
	history = history[max(0, len(history)-max(0, width)):]
	if len(history) == 0 {
		return ""
	}
	top := slices.Max(history)
	out := make([]rune, len(history))
	for i, v := range history {
		k := 0
		if top > 0 {
			k = min(7, int(v/top*8))
		}
		out[i] = []rune(steps)[k]
	}
	return string(out)
}

func (m model) Init() tea.Cmd { return m.next() }

// next waits an interval, then fetches, outside the viewer's own goroutine.
func (m model) next() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg {
		if m.paused {
			return tick{}
		}
		return m.fetch()
	})
}

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case sample:
		if !m.paused {
			m = m.take(msg)
		}
		return m, m.next()
	case tick:
		return m, m.next()
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "tab", "right":
			m.tab, m.offset = (m.tab+1)%tabCount, 0
		case "shift+tab", "left":
			m.tab, m.offset = (m.tab+tabCount-1)%tabCount, 0
		case "1", "2", "3", "4":
			m.tab, m.offset = int(msg.String()[0]-'1'), 0
		case "s":
			m.sort[m.tab] = (m.sort[m.tab] + 1) % len(sortNames[m.tab])
		case "space", "p":
			m.paused = !m.paused
		case "up", "k":
			m.offset = max(0, m.offset-1)
		case "down", "j":
			m.offset++
		case "pgup":
			m.offset = max(0, m.offset-10)
		case "pgdown":
			m.offset += 10
		case "home":
			m.offset = 0
		}
		m.offset = min(m.offset, max(0, len(m.rows())-1))
	}
	return m, nil
}

func (m model) View() tea.View {
	v := tea.NewView(m.render())
	v.AltScreen = true
	return v
}

// rate is the change a second between the last two samples.
func (m model) rate(now, last uint64) float64 {
	seconds := m.now.at.Sub(m.last.at).Seconds()
	if m.last.at.IsZero() || seconds <= 0 || now < last {
		return 0
	}
	return float64(now-last) / seconds
}

// prefixed splits a figure into at most six characters and its unit prefix.
func prefixed(v float64) (number, prefix string) {
	for _, p := range []struct {
		size   float64
		prefix string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= p.size*0.999995 { // what would be written as 1000.00 of the smaller
			return fmt.Sprintf("%.2f", v/p.size), p.prefix
		}
	}
	return fmt.Sprintf("%.0f", v), ""
}

// short writes a figure for a column.
func short(v float64) string {
	number, prefix := prefixed(v)
	return number + prefix
}

// measure writes a figure with its unit: 12.34 kpackets/s, 5.60 Mbit/s.
func measure(v float64, unit string) string {
	number, prefix := prefixed(v)
	return number + " " + prefix + unit
}

// render draws the screen: the totals, the tabs, a table cut to the
// height, the keys. Height 0 is unlimited and without keys.
func (m model) render() string {
	bold, dim, bad := lipgloss.NewStyle().Bold(true), lipgloss.NewStyle().Faint(true), lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	paint := func(s lipgloss.Style, text string) string {
		text = clip(text, m.width)
		if m.plain {
			return text
		}
		return s.Render(text)
	}
	now, last := m.now.counters.Totals, m.last.counters.Totals
	head := fmt.Sprintf("sallyport %s  up %s  %s", m.now.status.Instance, time.Duration(m.now.status.UptimeSeconds)*time.Second, count(m.now.sas.Total, "association"))
	if m.now.status.ManualKeys > 0 {
		head += "  MANUAL KEYS"
	}
	if m.paused {
		head += "  PAUSED"
	}
	lines := []string{
		paint(bold, head),
		m.direction("in", m.rate(now.Received, last.Received), 8*m.rate(now.BytesIn, last.BytesIn), m.in),
		m.direction("out", m.rate(now.Sent, last.Sent), 8*m.rate(now.BytesOut, last.BytesOut), m.out),
	}
	drops := clip(fmt.Sprintf("drops %s/s, %d in total%s", short(m.rate(now.Dropped, last.Dropped)), now.Dropped, m.topDrops()), m.width)
	if m.rate(now.Dropped, last.Dropped) > 0 && !m.plain {
		drops = bad.Render(drops)
	}
	lines = append(lines, drops)
	if m.now.err != nil {
		lines = append(lines, paint(bad, "figures are old: "+strings.ReplaceAll(m.now.err.Error(), "\n", " ")))
	} else {
		lines = append(lines, clip(m.keys(), m.width))
	}
	tabs := ""
	for i, n := range tabNames {
		if i == m.tab {
			tabs += fmt.Sprintf("[%d %s] ", i+1, n)
		} else {
			tabs += fmt.Sprintf(" %d %s  ", i+1, n)
		}
	}
	lines = append(lines, paint(bold, tabs+"  by "+sortNames[m.tab][m.sort[m.tab]]), paint(dim, m.header()))
	rows := m.rows()
	if len(rows) == 0 {
		rows = []string{emptyTables[m.tab]}
	}
	if m.height == 0 {
		for _, r := range rows {
			lines = append(lines, clip(r, m.width))
		}
		return strings.Join(lines, "\n") + "\n"
	}
	room := max(0, m.height-len(lines)-1)
	rows = rows[min(m.offset, len(rows)):]
	for i := range room {
		if i < len(rows) {
			lines = append(lines, clip(rows[i], m.width))
		} else {
			lines = append(lines, "")
		}
	}
	lines = append(lines, paint(dim, "tab/1-4 table  s sort  ↑↓ scroll  space pause  q quit"))
	return strings.Join(lines[:min(len(lines), m.height)], "\n")
}

// direction is one line of what arrives or leaves, with its last minute where there is room.
func (m model) direction(name string, packets, bits float64, history []float64) string {
	text := fmt.Sprintf("%-3s %18s %14s", name, measure(packets, "packets/s"), measure(bits, "bit/s"))
	return clip(text+"  "+sparkline(history, m.width-len(text)-2), m.width)
}

// clip cuts text to width columns and makes control characters visible.
func clip(text string, width int) string {
	out := make([]rune, 0, len(text))
	for _, r := range text {
		if len(out) >= width {
			break
		}
		if r < ' ' || r == 0x7f {
			r = '·'
		}
		out = append(out, r)
	}
	return string(out)
}

// topDrops names the three reasons that grow fastest.
func (m model) topDrops() string {
	all := m.dropRates()
	slices.SortStableFunc(all, func(a, b dropRate) int { return cmp.Compare(b.rate, a.rate) })
	out := ""
	for _, d := range all[:min(3, len(all))] {
		if d.rate > 0 {
			out += fmt.Sprintf("  %s %s/s", d.Name, short(d.rate))
		}
	}
	return out
}

type dropRate struct {
	control.Drop
	rate float64
}

func (m model) dropRates() []dropRate {
	before := map[string]uint64{}
	for _, d := range m.last.counters.Drops {
		before[d.Name] = d.Packets
	}
	var out []dropRate
	for _, d := range m.now.counters.Drops {
		if d.Packets > 0 {
			out = append(out, dropRate{d, m.rate(d.Packets, before[d.Name])})
		}
	}
	return out
}

// nameWidth gives the names of associations what the other columns leave, 62 of the line.
func (m model) nameWidth() int { return min(40, max(17, m.width-62)) }

// keys is one line about the key exchange; empty where there is none.
func (m model) keys() string {
	now, last := m.now.counters.IKE, m.last.counters.IKE
	if now.SAs == 0 && now.Received == 0 && now.Sent == 0 {
		return ""
	}
	failed := uint64(0)
	for _, x := range now.Exchanges {
		failed += x.Failed
	}
	return fmt.Sprintf("%s, %d half-open   handshakes %s/s   rekeys %s/s   failed %d", count(now.SAs, "IKE SA"), now.HalfOpen,
		short(m.rate(now.Established, last.Established)), short(m.rate(now.Rekeyed+now.ChildrenRekeyed, last.Rekeyed+last.ChildrenRekeyed)), failed)
}

func (m model) header() string {
	switch m.tab {
	case tabAssociations:
		return fmt.Sprintf("%-*s %-3s %-10s %-16s %2s %9s %8s %7s", m.nameWidth(), "NAME", "DIR", "SPI", "SUITE", "W", "PACKETS/S", "BIT/S", "DROPS")
	case tabWorkers:
		return fmt.Sprintf("%-6s %4s %5s %8s %8s %8s %8s %8s %8s %7s", "WORKER", "CORE", "BUSY", "IN/S", "OUT/S", "BIT/S IN", "DROPS/S", "GIVEN/S", "SLEEPS/S", "FREE")
	case tabIKE:
		return fmt.Sprintf("%-16s %-12s %-22s %8s %9s %8s  %s", "NAME", "STATE", "REMOTE", "AGE", "REKEY IN", "CHILDREN", "PROPOSAL")
	}
	return fmt.Sprintf("%-22s %-8s %10s %12s  %s", "REASON", "SEVERITY", "PACKETS/S", "TOTAL", "MEANING")
}

// elapsed writes the time from one moment to a later one; - where one of them never comes.
func elapsed(later, earlier time.Time) string {
	if later.IsZero() || earlier.IsZero() {
		return "-"
	}
	return max(0, later.Sub(earlier)).Truncate(time.Second).String()
}

// rows returns the lines of the chosen table, sorted.
func (m model) rows() []string {
	type row struct {
		text string
		key  float64 // descending
		name string  // ascending
	}
	var rows []row
	by := m.sort[m.tab]
	switch m.tab {
	case tabAssociations:
		before := map[string]control.SA{}
		for _, a := range m.last.sas.SAs {
			before[a.Name+a.Direction+a.SPI] = a
		}
		for _, a := range m.now.sas.SAs {
			b := before[a.Name+a.Direction+a.SPI]
			var drops uint64
			for _, d := range a.Drops {
				drops += d.Packets
			}
			worker := "-"
			if a.Worker >= 0 {
				worker = fmt.Sprint(a.Worker)
			}
			pps := m.rate(a.Packets, b.Packets)
			rows = append(rows, row{
				fmt.Sprintf("%-*s %-3s %-10s %-16s %2s %9s %8s %7s", m.nameWidth(), clip(a.Name, m.nameWidth()), a.Direction, a.SPI, clip(a.Suite, 16), worker, short(pps), short(8*m.rate(a.Bytes, b.Bytes)), short(float64(drops))),
				[]float64{pps, 0, float64(drops)}[by], a.Name + a.Direction + a.SPI,
			})
		}
	case tabWorkers:
		before := map[int]control.Worker{}
		for _, w := range m.last.status.Workers {
			before[w.Worker] = w
		}
		for _, w := range m.now.status.Workers {
			b := before[w.Worker]
			in := m.rate(w.PacketsIn, b.PacketsIn)
			rows = append(rows, row{
				fmt.Sprintf("%-6d %4s %4.0f%% %8s %8s %8s %8s %8s %8s %7s", w.Worker, core(w.Core), w.Busy*100, short(in), short(m.rate(w.PacketsOut, b.PacketsOut)), short(8*m.rate(w.BytesIn, b.BytesIn)), short(m.rate(w.Drops, b.Drops)), short(m.rate(w.Handovers, b.Handovers)), short(m.rate(w.Sleeps, b.Sleeps)), short(float64(w.FramesFree))),
				[]float64{0, in, w.Busy}[by], fmt.Sprintf("%4d", w.Worker),
			})
		}
	case tabIKE:
		for i := range m.now.sas.IKESAs {
			a := &m.now.sas.IKESAs[i]
			age := m.now.at.Sub(a.EstablishedAt)
			rows = append(rows, row{
				fmt.Sprintf("%-16s %-12s %-22s %8s %9s %8d  %s", clip(a.Name, 16), clip(a.State, 12), clip(a.RemoteID, 22), elapsed(m.now.at, a.EstablishedAt), elapsed(a.RekeyAt, m.now.at), len(a.Children), a.Proposal),
				[]float64{0, age.Seconds()}[by], fmt.Sprintf("%s %20d", a.Name, a.Number),
			})
		}
	case tabDrops:
		for _, d := range m.dropRates() {
			rows = append(rows, row{
				fmt.Sprintf("%-22s %-8s %10s %12d  %s", d.Name, d.Severity, short(d.rate), d.Packets, d.Sentence),
				[]float64{d.rate, float64(d.Packets), 0}[by], d.Name,
			})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(b.key, a.key), cmp.Compare(a.name, b.name)) })
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r.text
	}
	return out
}
