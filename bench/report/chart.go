package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// chart is a plot over categories: lines where the categories are an axis, bars where they are things.
type chart struct {
	Title, Unit string
	// Note stands below: what is to be known to read it.
	Note   string
	Labels []string // of the categories
	Series []series
	Bars   bool
	Log    bool // the value axis
	// Stack puts the series of bars on each other.
	Stack bool
}

// series is one line, or one bar of each category. NaN is no value.
type series struct {
	Name   string
	Values []float64
	// Spread says, per category, how far the samples lie apart, as a share; nil is unknown.
	Spread []float64
	Dashed bool // a limit, not a contender
}

// Sizes of a drawing, in its own units.
const (
	width, height                         = 640.0, 300.0
	marginLeft, marginRight, marginBottom = 56.0, 12.0, 34.0
	marginTop                             = 12.0
)

// SVG draws the chart. Colours are classes, so that the page's theme sets them.
func (c *chart) SVG() template.HTML {
	var b strings.Builder
	low, high := c.bounds()
	y := func(v float64) float64 {
		share := (v - low) / (high - low)
		if c.Log {
			share = math.Log(v/low) / math.Log(high/low)
		}
		return marginTop + (height-marginTop-marginBottom)*(1-share)
	}
	slot := (width - marginLeft - marginRight) / float64(len(c.Labels))
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, width, height, html.EscapeString(c.Title))
	for _, v := range c.ticks(low, high) {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			marginLeft, width-marginRight, y(v), y(v), marginLeft-6, y(v)+4, number(v))
	}
	fmt.Fprintf(&b, `<text class="tick" x="2" y="%.1f">%s</text>`, marginTop-1, html.EscapeString(c.Unit))
	for i, l := range c.Labels {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, marginLeft+slot*(float64(i)+0.5), height-marginBottom+16, html.EscapeString(l))
	}
	if c.Bars {
		c.bars(&b, slot, low, y)
	} else {
		c.lines(&b, slot, y)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

func (c *chart) hover(s *series, i int) string {
	text := fmt.Sprintf("%s, %s: %s %s", s.Name, c.Labels[i], number(s.Values[i]), c.Unit)
	if s.Spread != nil {
		text += fmt.Sprintf(", spread %.0f %%", 100*s.Spread[i])
	}
	return html.EscapeString(text)
}

func (c *chart) bars(b *strings.Builder, slot, low float64, y func(float64) float64) {
	n := float64(len(c.Series))
	if c.Stack {
		n = 1
	}
	wide := slot * 0.76 / n
	base := make([]float64, len(c.Labels))
	for k := range c.Series {
		s := &c.Series[k]
		for i, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			from, at := low, float64(k)
			if c.Stack {
				from, at = base[i], 0
				v += from
				base[i] = v
			}
			fmt.Fprintf(b, `<rect class="bar s%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s</title></rect>`,
				k%colours, marginLeft+slot*(float64(i)+0.12)+wide*at, y(v), wide*0.92, math.Max(y(from)-y(v), 0.5), c.hover(s, i))
		}
	}
}

func (c *chart) lines(b *strings.Builder, slot float64, y func(float64) float64) {
	for k := range c.Series {
		s := &c.Series[k]
		var path []string
		join := "M"
		for i, v := range s.Values {
			if math.IsNaN(v) {
				join = "M"
				continue
			}
			path = append(path, fmt.Sprintf("%s%.1f %.1f", join, marginLeft+slot*(float64(i)+0.5), y(v)))
			join = "L"
		}
		if len(path) == 0 {
			continue
		}
		class := "line"
		if s.Dashed {
			class += " dashed"
		}
		fmt.Fprintf(b, `<path class="%s s%d" d="%s"/>`, class, k%colours, strings.Join(path, ""))
		for i, v := range s.Values {
			if !math.IsNaN(v) {
				fmt.Fprintf(b, `<circle class="point s%d" cx="%.1f" cy="%.1f" r="4"><title>%s</title></circle>`, k%colours, marginLeft+slot*(float64(i)+0.5), y(v), c.hover(s, i))
			}
		}
	}
}

// colours is how many the page has.
const colours = 6

// bounds are the ends of the value axis: zero, or on a logarithmic one the power of ten below the least value, and a little
// more than the largest.
func (c *chart) bounds() (low, high float64) {
	low, high = math.Inf(1), 0
	sums := make([]float64, len(c.Labels))
	for _, s := range c.Series {
		for i, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			if c.Stack {
				sums[i] += v
				v = sums[i]
			}
			low, high = math.Min(low, v), math.Max(high, v)
		}
	}
	if high == 0 {
		return 0, 1
	}
	if !c.Log {
		return 0, high * 1.06
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	if low == high {
		high *= 10
	}
	return low, high
}

// ticks are about five round values between the ends; on a logarithmic axis 1, 2 and 5 of each power of ten.
func (c *chart) ticks(low, high float64) (all []float64) {
	if c.Log {
		for p := low; p <= high*1.001; p *= 10 {
			for _, m := range []float64{1, 2, 5} {
				if v := p * m; v >= low && v <= high*1.001 {
					all = append(all, v)
				}
			}
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(high/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if high/(step*m) <= 6 {
			step *= m
			break
		}
	}
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
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
