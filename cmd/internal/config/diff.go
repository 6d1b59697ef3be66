package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Change is what a reload has to do. What is not named in it stays untouched:
// an unchanged association goes on with its sequence number, its replay window
// and its counters.
type Change struct {
	Install []*Association // of the new configuration, in its order
	Remove  []*Association // of the old one
	// Policies, Endpoints and Interfaces say whether that part differs.
	Policies, Endpoints, Interfaces bool
	// LogLevel says whether the log's level differs.
	LogLevel                bool
	AddFences, RemoveFences []Fence
}

// Empty says whether there is nothing to do.
func (c *Change) Empty() bool {
	return len(c.Install)+len(c.Remove)+len(c.AddFences)+len(c.RemoveFences) == 0 && !c.Policies && !c.Endpoints && !c.Interfaces && !c.LogLevel
}

// Keys remembers the fingerprint of every key that the process has installed.
// A key is installed once in the life of a process: a second installation would
// count from 1 again, which repeats nonces when sending (NIST SP 800-38D, 8.2)
// and takes replays when receiving.
type Keys map[[32]byte]bool

// Use notes that an association was installed.
func (k Keys) Use(a *Association) {
	for _, id := range a.KeyIDs() {
		k[id] = true
	}
}

// Diff compares the running configuration with a new one. It changes neither.
// The error lists what cannot be changed in a running daemon, so that a refused
// reload leaves everything as it was.
func Diff(old, new *Config, used Keys) (*Change, error) {
	var refused []error
	refuse := func(what string) {
		refused = append(refused, Issue{File: new.Path, Text: what + " in a running daemon: restart sallyportd"})
	}
	fixed := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			refuse(key + " cannot change")
		}
	}
	o, n := &old.File, &new.File
	fixed("instance", o.Instance, n.Instance)
	fixed("control", o.Control, n.Control)
	fixed("log.format", o.Log.Format, n.Log.Format)
	fixed("workers", o.Workers, n.Workers)
	fixed("dataplane", o.Dataplane, n.Dataplane)
	fixed("ike.threads", o.IKE.Threads, n.IKE.Threads)
	if !old.Negotiates() && len(new.Connections) > 0 {
		refuse("a configuration with manual keys only was started without IKE: negotiated connections cannot be added")
	}

	for _, i := range n.Interfaces {
		at := slices.IndexFunc(o.Interfaces, func(x Interface) bool { return x.Name == i.Name && x.Virtual() == i.Virtual() })
		if i.Virtual() {
			continue // these come and go
		}
		if at < 0 {
			refuse("interfaces." + i.Name + " cannot be added")
		} else {
			fixed("interfaces."+i.Name+".xdp_mode", o.Interfaces[at].XDPMode, i.XDPMode)
		}
	}
	for _, i := range o.Interfaces {
		if !i.Virtual() && !slices.ContainsFunc(n.Interfaces, func(x Interface) bool { return x.Name == i.Name && !x.Virtual() }) {
			refuse("interfaces." + i.Name + " cannot be removed")
		}
	}

	c := &Change{
		LogLevel:   o.Log.Level != n.Log.Level,
		Policies:   !reflect.DeepEqual(old.Policies, new.Policies),
		Endpoints:  !slices.Equal(old.Endpoints, new.Endpoints) || old.AnyEndpoint != new.AnyEndpoint,
		Interfaces: !reflect.DeepEqual(o.Interfaces, n.Interfaces),
	}
	running := map[string]*Association{}
	for i := range old.Associations {
		running[old.Associations[i].ID()] = &old.Associations[i]
	}
	for i := range new.Associations {
		a := &new.Associations[i]
		if before, ok := running[a.ID()]; ok && before.same(a) {
			delete(running, a.ID())
			continue
		}
		if slices.ContainsFunc(a.KeyIDs(), func(id [32]byte) bool { return used[id] }) {
			refused = append(refused, Issue{File: new.Path, Text: fmt.Sprintf("%s: its key was in use before in this process; give the changed association a fresh key", a.ID())})
		}
		c.Install = append(c.Install, a)
	}
	for _, id := range slices.Sorted(maps.Keys(running)) {
		c.Remove = append(c.Remove, running[id])
	}
	c.AddFences = missing(new.Fences, old.Fences)
	c.RemoveFences = missing(old.Fences, new.Fences)
	if err := errors.Join(refused...); err != nil {
		return nil, err
	}
	return c, nil
}

// same compares descriptions, keys included.
func (a *Association) same(b *Association) bool {
	x, y := *a, *b
	x.Key, y.Key = Secret{}, Secret{}
	return reflect.DeepEqual(x, y) && bytes.Equal(a.Key.Bytes(), b.Key.Bytes())
}

// missing returns what a holds and b does not.
func missing(a, b []Fence) []Fence {
	there := make(map[Fence]bool, len(b))
	for _, f := range b {
		there[f] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(f Fence) bool { return there[f] })
}
