//go:build !amd64

package aesgcm

// assembled lists the implementations in assembly: none on this architecture.
func assembled() []implementation { return nil }
