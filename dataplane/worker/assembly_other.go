//go:build !amd64

package worker

// pass is passGeneric.
func (r *outRun) pass() *known { return r.passGeneric() }
