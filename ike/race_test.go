//go:build race

package ike

// underRace: what is measured then is the race detector.
const underRace = true
