//go:build race

package packet

// Raced says that the race detector watches. It does not see what assembly reads, and so not that the owner of an association had given it up before assembly took
// it: what the two wrote would look like a race. So Go does that work then.
const Raced = true
