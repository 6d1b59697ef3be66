//go:build !amd64

package worker

// pass is passGeneric.
func (r *outRun) pass() *known { return r.passGeneric() }

// stage is stageGeneric.
func (r *departure) stage() int { return r.stageGeneric() }

// pass is passGeneric.
func (r *inRun) pass() *known { return r.passGeneric() }
