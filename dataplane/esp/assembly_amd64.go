package esp

import (
	"github.com/klauspost/cpuid/v2"

	"sallyport/dataplane/packet"
)

// assembled says that this processor has the instructions that the assembly needs, and that nobody watches who does not see what it reads.
var assembled = !packet.Raced && cpuid.CPU.Supports(cpuid.MOVBE, cpuid.BMI2)

// preparePlain is prepareGeneric in assembly, for the outer header of plainHeaderLen.
//
//go:noescape
func preparePlain(r *plainOutbound) (packets int)

// prepare prepares the packets of r for encryption, see prepareGeneric.
func (r *plainOutbound) prepare() (packets int) {
	if assembled && r.o.HeaderLen == plainHeaderLen {
		return preparePlain(r)
	}
	return r.prepareGeneric()
}

// acceptPlainRun is acceptGeneric in assembly.
//
//go:noescape
func acceptPlainRun(r *plainInbound) (packets int)

// accept accepts packets of r, see acceptGeneric.
func (r *plainInbound) accept() (packets int) {
	if assembled {
		return acceptPlainRun(r)
	}
	return r.acceptGeneric()
}

// takePlainRun is takeGeneric in assembly, for what is plainFront.
//
//go:noescape
func takePlainRun(r *plainTaken) (packets int)

// take takes packets of r, see takeGeneric.
func (r *plainTaken) take() (packets int) {
	if assembled && r.front == plainFront {
		return takePlainRun(r)
	}
	return r.takeGeneric()
}
