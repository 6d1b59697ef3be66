package worker

import (
	"github.com/klauspost/cpuid/v2"

	"sallyport/dataplane/packet"
)

// assembled says that this processor has the instructions that the assembly needs, and that nobody watches who does not see what it reads.
var assembled = !packet.Raced && cpuid.CPU.Supports(cpuid.MOVBE, cpuid.BMI2)

// passOutbound is passGeneric in assembly.
//
//go:noescape
func passOutbound(r *outRun) (other *known)

// pass is passGeneric.
func (r *outRun) pass() *known {
	if assembled {
		return passOutbound(r)
	}
	return r.passGeneric()
}

// stageDeparture is stageGeneric in assembly.
//
//go:noescape
func stageDeparture(r *departure) (n int)

// stage is stageGeneric.
func (r *departure) stage() int {
	if assembled {
		return stageDeparture(r)
	}
	return r.stageGeneric()
}

// passDecapsulated is passGeneric in assembly.
//
//go:noescape
func passDecapsulated(r *inRun) (other *known)

// pass is passGeneric.
func (r *inRun) pass() *known {
	if assembled {
		return passDecapsulated(r)
	}
	return r.passGeneric()
}
