package ike

import "time"

// timers is a heap of entries by their deadline; an entry knows its place. It belongs to one shard.
type timers []*entry

// set moves an entry to a deadline; the zero time takes it out.
func (t *timers) set(e *entry, at time.Time) {
	switch {
	case at.IsZero():
		t.remove(e)
	case e.place == 0:
		e.deadline = at
		*t = append(*t, e)
		e.place = len(*t)
		t.up(len(*t) - 1)
	case !at.Equal(e.deadline):
		e.deadline = at
		t.up(e.place - 1)
		t.down(e.place - 1)
	}
}

func (t *timers) remove(e *entry) {
	if e.place == 0 {
		return
	}
	i, last := e.place-1, len(*t)-1
	t.swap(i, last)
	(*t)[last] = nil
	*t = (*t)[:last]
	e.place = 0
	if i < last {
		t.up(i)
		t.down(i)
	}
}

// next returns the earliest entry, nil if there is none.
func (t timers) next() *entry {
	if len(t) == 0 {
		return nil
	}
	return t[0]
}

func (t timers) swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].place, t[j].place = i+1, j+1
}

func (t timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t[i].deadline.Before(t[parent].deadline) {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t) {
			return
		}
		if child+1 < len(t) && t[child+1].deadline.Before(t[child].deadline) {
			child++
		}
		if !t[child].deadline.Before(t[i].deadline) {
			return
		}
		t.swap(i, child)
		i = child
	}
}
