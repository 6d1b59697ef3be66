package ike

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/ike/ikesa"
)

func TestChildrenComeUpByThemselves(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 10, nil)
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 10 {
			t.Fatalf("%d children", n)
		}
		if s := p.b.server.Load().Stats(); s.SAs != 10 || s.Established != 10 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		if s := p.b.server.Load().Stats(); s.HalfOpen != 0 {
			t.Errorf("%d half-open after a sign of life", s.HalfOpen)
		}
	})
}

func TestTrapBringsTheChildUp(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 2, func(side string, c *ikesa.Connection) {
			c.Children[0].StartAction = ikesa.ActionTrap
			if c.Name == "a-b-1" {
				c.Children[0].StartAction = ikesa.ActionNone
			}
		})
		time.Sleep(time.Minute)
		if n := paired(t, p.a, p.b); n != 0 {
			t.Fatalf("%d children before any packet", n)
		}
		a := p.a.server.Load()
		for _, name := range []string{"a-b-0", "a-b-0", "a-b-1", "nobody"} {
			a.Acquire(name, "net")
		}
		a.Acquire("a-b-0", "nothing")
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Fatalf("%d children", n)
		}
	})
}

func TestOperatorBringsUpRekeysAndDown(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 1, func(side string, c *ikesa.Connection) { c.Children[0].StartAction = ikesa.ActionNone })
		a := p.a.server.Load()
		ctx := t.Context()
		if err := a.Up(ctx, "nobody", ""); !errors.Is(err, errNoSuchName) {
			t.Error(err)
		}
		if err := a.Rekey(ctx, "a-b-0", ""); !errors.Is(err, errNotUp) {
			t.Error(err)
		}
		if err := a.Up(ctx, "a-b-0", ""); err != nil {
			t.Fatal(err)
		}
		if err := a.Up(ctx, "a-b-0", "net"); err != nil {
			t.Fatal("again", err)
		}
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Fatal(n)
		}
		if err := a.Rekey(ctx, "a-b-0", "net"); err != nil {
			t.Fatal(err)
		}
		if err := a.Rekey(ctx, "a-b-0", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Fatal(n)
		}
		if s := a.Stats(); s.Rekeyed != 1 || s.ChildRekeyed != 1 || s.SAs != 1 {
			t.Errorf("%+v", s)
		}
		seen := 0
		a.List(func(i *Info) bool {
			seen++
			if len(i.Children) != 1 || i.Connection.Name != "a-b-0" || len(i.Usage) != 1 {
				t.Errorf("%+v", i)
			}
			return true
		})
		if seen != 1 {
			t.Error(seen)
		}
		if err := a.Down(ctx, "a-b-0", "net"); err != nil {
			t.Fatal(err)
		}
		if err := a.Up(ctx, "a-b-0", "net"); err != nil {
			t.Fatal(err)
		}
		if err := a.Down(ctx, "a-b-0", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 0 || a.Stats().SAs != 0 || p.b.server.Load().Stats().SAs != 0 {
			t.Error(n, a.Stats().SAs)
		}
	})
}

func TestOperatorIsToldWhyNot(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 1, func(side string, c *ikesa.Connection) {
			c.Children[0].StartAction = ikesa.ActionNone
			if side == "b" {
				c.Children[0].LocalTS = prefixes("203.0.113.0/24")
			}
		})
		if err := p.a.server.Load().Up(t.Context(), "a-b-0", "net"); !errors.Is(err, ikesa.ReasonSelectors) {
			t.Errorf("%v", err)
		}
		p.b.deaf.Store(true)
		if err := p.a.server.Load().Down(t.Context(), "a-b-0", ""); err != nil {
			t.Error(err)
		}
		if err := p.a.server.Load().Up(t.Context(), "a-b-0", "net"); !errors.Is(err, ikesa.ReasonTimeout) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.a.server.Load().Up(ctx, "a-b-0", "net"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
	})
}
