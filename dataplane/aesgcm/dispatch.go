package aesgcm

import (
	"fmt"
	"os"
	"strings"
)

// implementation is one way to do the work. Tests run against each available one.
type implementation struct {
	name string
	// supported says that this machine has the instructions, available that they also
	// compute what they should.
	supported, available bool

	expand func(*Key, []byte) error
	seal   func([]Op)
	open   func([]Op)
	// openTruncated is OpenTruncated.
	openTruncated func([]Op, int)
}

// generic is the twin in Go of all others.
var generic = implementation{"generic", true, true, expandGeneric, sealGeneric, openGeneric, openTruncatedGeneric}

// implementations lists every implementation that was built, the preferred first.
var implementations = append(assembled(), generic)

// Environment names the variable that forces an implementation, for tests and
// measurements of whole programs. It is read once, at start.
const Environment = "SALLYPORT_AESGCM"

// active is the implementation in use.
var active = pick(implementations, os.Getenv(Environment))

// pick returns the first implementation that this machine can run, or the one that was asked for.
func pick(list []implementation, name string) *implementation {
	var names []string
	for i := range list {
		if list[i].available && (name == "" || name == list[i].name) {
			return &list[i]
		}
		if list[i].available {
			names = append(names, list[i].name)
		}
	}
	panic(fmt.Sprintf("aesgcm: %s=%s: this machine can run %s", Environment, name, strings.Join(names, ", ")))
}

// Implementation returns the name of the implementation in use.
func Implementation() string { return active.name }

// A Variant is an implementation by itself, to be measured beside others. Its keys
// are its own: other variants refuse them.
type Variant struct {
	Name string
	Set  func(*Key, []byte) error
	Seal func([]Op)
	Open func([]Op)
}

// Variants returns the implementations that this machine can run, the preferred first.
func Variants() []Variant {
	var all []Variant
	for i := range implementations {
		if im := &implementations[i]; im.available {
			all = append(all, Variant{im.name, im.set, im.seal, im.open})
		}
	}
	return all
}
