package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
)

// chart is a plot: over categories, lines where they are an axis and bars where they are things, or over a number.
type chart struct {
	Title, Unit string
	// Note stands below: what is to be known to read it.
	Note   string
	Labels []string // of the categories; none: over a number, and each series has its own X
	Across string   // what the categories or numbers are
	Series []series
	Bars   bool
	Lying  bool // bars that lie, one category below the other: for many, or such of long names
	Log    bool // the value axis
	// Floor is the least value of a logarithmic axis; what is below, 0 too, is drawn on it. 0: from the values.
	Floor float64
	// Stack puts the series of bars on each other.
	Stack bool
	// Limit is a value with a line of its own, 0 for none.
	Limit     float64
	LimitName string
}

// series is one line, or one bar of each category. NaN is no value.
type series struct {
	Name   string
	Colour int
	X      []float64 // over a number
	Values []float64
	// Low and High are the ends of the samples, as Spread takes them; NaN or absent for none.
	Low, High []float64
	// Marks say, by category, why a value is not to be relied on, or why there is none.
	Marks  []string
	Dashed bool // a limit, not a contender
}

// add appends a value with its samples' ends.
func (s *series) add(value, low, high float64, mark string) {
	s.Values, s.Low, s.High, s.Marks = append(s.Values, value), append(s.Low, low), append(s.High, high), append(s.Marks, mark)
}

// scaled multiplies all values of category i.
func (s *series) scaled(i int, by float64) {
	s.Values[i] *= by
	s.Low[i] *= by
	s.High[i] *= by
}

// empty says that a series has neither a value nor a mark that stands for one.
func (s *series) empty() bool {
	return !slices.ContainsFunc(s.Values, func(v float64) bool { return !math.IsNaN(v) && v != 0 }) &&
		!slices.ContainsFunc(s.Marks, func(m string) bool { return m != "" })
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
		if len(c.Series) > 0 && (len(c.Labels) > 0 || c.Series[0].X != nil) {
			list = append(list, c)
		}
	}
	return list
}

// Sizes of a drawing, in its own units.
const (
	height                                = 272.0
	marginLeft, marginRight, marginBottom = 50.0, 8.0, 44.0
	marginTop                             = 22.0
)

// crowd is how many bars stand beside each other before they need the whole width of the page.
const crowd = 30

// Wide says that the chart takes the whole width.
func (c *chart) Wide() bool {
	return c.Bars && !c.Stack && !c.Lying && len(c.Labels)*len(c.Series) > crowd
}

func (c *chart) width() float64 {
	if c.Wide() {
		return 984
	}
	return 480
}

// SVG draws the chart. Colours are classes, so that the page's theme sets them.
func (c *chart) SVG() template.HTML {
	if c.Lying {
		return c.lying()
	}
	var b strings.Builder
	width := c.width()
	low, high := c.bounds()
	y := func(v float64) float64 {
		share := (v - low) / (high - low)
		if c.Log {
			share = math.Log(max(v, low)/low) / math.Log(high/low)
		}
		return marginTop + (height-marginTop-marginBottom)*(1-share)
	}
	x, slot := c.across()
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, width, height, html.EscapeString(c.Title))
	for _, v := range c.ticks(low, high) {
		label := number(v)
		if c.Floor > 0 && v == low {
			label = "0"
		}
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			marginLeft, width-marginRight, y(v), y(v), marginLeft-6, y(v)+4, label)
	}
	fmt.Fprintf(&b, `<text class="tick unit" x="2" y="%.1f">%s</text>`, marginTop-11, html.EscapeString(c.Unit))
	if c.Labels == nil {
		_, most := c.extent()
		step := niceStep(most)
		for v := 0.0; v <= most*1.0001; v += step {
			fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x(v), height-marginBottom+16, number(math.Round(v*1e6)/1e6))
		}
	}
	for i, l := range c.Labels {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x(float64(i)), height-marginBottom+16, html.EscapeString(l))
	}
	fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, (marginLeft+width-marginRight)/2, height-6, html.EscapeString(c.Across))
	if c.Limit > 0 {
		fmt.Fprintf(&b, `<line class="limit" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f">%s</text>`,
			marginLeft, width-marginRight, y(c.Limit), y(c.Limit), marginLeft+4, y(c.Limit)-4, html.EscapeString(c.LimitName))
	}
	if c.Bars {
		c.bars(&b, slot, low, x, y)
	} else {
		c.lines(&b, x, y)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// across returns where a category's middle, or a number, is, and how wide a category is.
func (c *chart) across() (x func(float64) float64, slot float64) {
	plot := c.width() - marginLeft - marginRight
	if c.Labels == nil {
		_, most := c.extent()
		return func(v float64) float64 { return marginLeft + plot*v/most }, 0
	}
	slot = plot / float64(len(c.Labels))
	return func(i float64) float64 { return marginLeft + slot*(i+0.5) }, slot
}

// extent is that of the numbers across.
func (c *chart) extent() (least, most float64) {
	for _, s := range c.Series {
		for _, v := range s.X {
			most = max(most, v)
		}
	}
	if most == 0 {
		most = 1
	}
	return 0, most * 1.04
}

func (c *chart) hover(s *series, i int) string {
	at := ""
	if c.Labels != nil {
		at = c.Labels[i]
	} else {
		at = number(s.X[i]) + " " + c.Across
	}
	text := fmt.Sprintf("%s, %s: %s %s", s.Name, at, number(s.Values[i]), c.Unit)
	if low, high := s.ends(i); low < high {
		text += fmt.Sprintf(" (%s to %s)", number(low), number(high))
	}
	if m := s.mark(i); m != "" {
		text += "; " + m
	}
	return html.EscapeString(text)
}

func (s *series) mark(i int) string {
	if i < len(s.Marks) {
		return s.Marks[i]
	}
	return ""
}

func (s *series) ends(i int) (low, high float64) {
	if i < len(s.Low) {
		return s.Low[i], s.High[i]
	}
	return math.NaN(), math.NaN()
}

// weak is the class of a value that is marked.
func (s *series) weak(i int) string {
	if s.mark(i) != "" {
		return " weak"
	}
	return ""
}

func (c *chart) bars(b *strings.Builder, slot, low float64, x, y func(float64) float64) {
	n := float64(len(c.Series))
	if c.Stack {
		n = 1
	}
	wide := min(slot*0.8/n, 44)
	base := make([]float64, len(c.Labels))
	for k := range c.Series {
		s := &c.Series[k]
		for i, v := range s.Values {
			from, at := low, float64(k)
			if c.Stack {
				at = 0
			}
			left := x(float64(i)) - wide*n/2 + wide*at
			if math.IsNaN(v) {
				if m := s.mark(i); m != "" {
					fmt.Fprintf(b, `<text class="none t%d" x="%.1f" y="%.1f" text-anchor="middle">×<title>%s</title></text>`,
						s.Colour%colours, left+wide/2, y(low)-3, html.EscapeString(s.Name+", "+c.Labels[i]+": "+m))
				}
				continue
			}
			if c.Stack {
				from = base[i]
				v += from
				base[i] = v
			}
			fmt.Fprintf(b, `<rect class="bar s%d%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s</title></rect>`,
				s.Colour%colours, s.weak(i), left, y(v), wide*0.9, math.Max(y(from)-y(v), 0.5), c.hover(s, i))
			if low, high := s.ends(i); !c.Stack && low < high {
				whisker(b, left+wide*0.45, y(low), y(high))
			}
		}
	}
}

// Sizes of a drawing whose bars lie.
const (
	barHeight, barGap = 7.0, 6.0
	nameWidth         = 128.0
)

// lying draws bars that lie.
func (c *chart) lying() template.HTML {
	var b strings.Builder
	_, high := c.bounds()
	width, slot := c.width(), barHeight*float64(len(c.Series))+barGap
	bottom := marginTop + slot*float64(len(c.Labels))
	x := func(v float64) float64 { return nameWidth + (width-nameWidth-marginRight-8)*v/high }
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, width, bottom+38, html.EscapeString(c.Title))
	for _, v := range c.ticks(0, high) {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			x(v), x(v), marginTop, bottom, x(v), bottom+15, number(v))
	}
	fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, (nameWidth+width)/2, bottom+32, html.EscapeString(c.Unit))
	for i, l := range c.Labels {
		top := marginTop + slot*float64(i) + barGap/2
		fmt.Fprintf(&b, `<text class="tick name" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, nameWidth-6, top+(slot-barGap)/2+4, html.EscapeString(l))
		for k := range c.Series {
			s := &c.Series[k]
			y := top + barHeight*float64(k)
			if math.IsNaN(s.Values[i]) {
				if m := s.mark(i); m != "" {
					fmt.Fprintf(&b, `<text class="none small" x="%.1f" y="%.1f">×<title>%s</title></text>`, nameWidth+1, y+barHeight, html.EscapeString(s.Name+", "+l+": "+m))
				}
				continue
			}
			fmt.Fprintf(&b, `<rect class="bar s%d%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1"><title>%s</title></rect>`,
				s.Colour%colours, s.weak(i), nameWidth, y, math.Max(x(s.Values[i])-nameWidth, 0.5), barHeight-1, c.hover(s, i))
			if low, high := s.ends(i); low < high {
				fmt.Fprintf(&b, `<path class="whisker" d="M%.1f %.1fH%.1f"/>`, x(low), y+(barHeight-1)/2, x(high))
			}
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

func whisker(b *strings.Builder, x, low, high float64) {
	fmt.Fprintf(b, `<path class="whisker" d="M%.1f %.1fV%.1fM%.1f %.1fh5M%.1f %.1fh5"/>`, x, low, high, x-2.5, low, x-2.5, high)
}

func (c *chart) lines(b *strings.Builder, x, y func(float64) float64) {
	for k := range c.Series {
		s := &c.Series[k]
		place := func(i int) float64 {
			if s.X != nil {
				return x(s.X[i])
			}
			return x(float64(i))
		}
		var path []string
		join := "M"
		for i, v := range s.Values {
			if math.IsNaN(v) {
				join = "M"
				continue
			}
			path = append(path, fmt.Sprintf("%s%.1f %.1f", join, place(i), y(v)))
			join = "L"
		}
		if len(path) == 0 {
			continue
		}
		class := "line"
		if s.Dashed {
			class += " dashed"
		}
		fmt.Fprintf(b, `<path class="%s s%d" d="%s"/>`, class, s.Colour%colours, strings.Join(path, ""))
		for i, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			if low, high := s.ends(i); low < high {
				whisker(b, place(i), y(low), y(high))
			}
			fmt.Fprintf(b, `<circle class="point s%d%s" cx="%.1f" cy="%.1f" r="3.5"><title>%s</title></circle>`, s.Colour%colours, s.weak(i), place(i), y(v), c.hover(s, i))
		}
	}
}

// colours is how many the page has.
const colours = 8

// bounds are the ends of the value axis: zero, or on a logarithmic one the power of ten below the least value, and a little
// more than the largest.
func (c *chart) bounds() (low, high float64) {
	low, high = math.Inf(1), c.Limit
	sums := make([]float64, len(c.Labels))
	for k := range c.Series {
		s := &c.Series[k]
		for i, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			if c.Stack {
				sums[i] += v
				v = sums[i]
			}
			low, high = math.Min(low, v), math.Max(high, v)
			if l, h := s.ends(i); !c.Stack && l < h {
				low, high = math.Min(low, l), math.Max(high, h)
			}
		}
	}
	if high == 0 || math.IsInf(low, 1) { // all values are withheld
		if c.Log {
			return 1, 10 // which has decades; from 0 on there is none
		}
		return c.Floor, c.Floor + 1
	}
	if !c.Log {
		return 0, high * 1.06
	}
	if c.Floor > 0 {
		low = c.Floor
	}
	low = math.Pow(10, math.Floor(math.Log10(max(low, 1e-9))+1e-9))
	top := math.Pow(10, math.Floor(math.Log10(high)))
	for _, m := range []float64{1, 2, 5, 10} { // not a decade more than it takes
		if top*m >= high {
			high = top * m
			break
		}
	}
	if high <= low {
		high = low * 10
	}
	return low, high
}

// niceStep is a round distance that goes into a range about five times.
func niceStep(high float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(high/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if high/(step*m) <= 6 {
			return step * m
		}
	}
	return step
}

// ticks are about five round values between the ends; on a logarithmic axis each power of ten, and where these are few also 2 and 5
// of it.
func (c *chart) ticks(low, high float64) (all []float64) {
	if c.Log {
		between := []float64{1, 2, 5}
		if high/low > 500 {
			between = between[:1]
		}
		for p := low; p <= high*1.001; p *= 10 {
			for _, m := range between {
				if v := p * m; v >= low && v <= high*1.001 {
					all = append(all, v)
				}
			}
		}
		return all
	}
	step := niceStep(high)
	for v := low; v <= high; v += step {
		all = append(all, v)
	}
	return all
}

// number writes a value with three figures that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + " M"
	case a >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a < 0.1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Who is drawn in which colour, on every chart.
var coloursOf = []struct {
	begins string
	colour int
}{
	{"Sallyport", 0}, {"ipsec-secgw", 1}, {"DPDK ipsec-secgw", 1}, {"kernel", 2}, {"wireguard", 3}, {"strongSwan", 4}, {"testpmd", 5}, {"the sender", 6},
	{"libipsec-mb", 1}, {"Go", 3}, {"standard library", 3},
}

func colourOf(name string, otherwise int) int {
	for _, c := range coloursOf {
		if strings.HasPrefix(name, c.begins) {
			return c.colour
		}
	}
	return otherwise
}
