//go:build race

package worker

// raced says that the race detector watches. It does not see what assembly reads, and so not that an association's owner had given it up before outRun.turn
// took it: what the two wrote would look like a race.
const raced = true
