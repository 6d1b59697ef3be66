//go:build !race

package ike

const underRace = false
