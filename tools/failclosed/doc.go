// Package failclosed tries to make two running gateways leak. It has tests only.
//
// The network is that of [sallyport/tools/rig]: the gateways' kernels forward and have routes to each
// other, so whatever the gateways do not hold back crosses the transit network in the
// clear. The hosts never stop sending; the capture has caught a deliberate packet
// in the clear before anything else. Then processes are killed, stopped and reloaded, interfaces
// vanish and come back.
//
// The number of kills is 5, or 100 with SALLYPORT_LONG=1. Their moments come from a seed that is
// printed; SALLYPORT_SEED repeats it.
package failclosed
