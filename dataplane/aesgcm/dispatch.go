package aesgcm

// implementation is one way to do the work. Tests run against each available one.
type implementation struct {
	name      string
	available bool
	seal      func([]Op)
	open      func([]Op)
}

// implementations lists every implementation that was built, the preferred first.
var implementations = []implementation{
	{"generic", true, sealGeneric, openGeneric},
}

// active is the first implementation that this machine can run.
var active = pick(implementations)

func pick(list []implementation) implementation {
	for _, i := range list {
		if i.available {
			return i
		}
	}
	panic("aesgcm: no implementation is available")
}

// Implementation returns the name of the implementation in use.
func Implementation() string { return active.name }
