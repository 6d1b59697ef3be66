package config

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/transform"
)

const (
	// mtuMax is the largest IP packet that fits a frame behind a tagged Ethernet header.
	mtuMax = packet.LenMax - 18

	defaultSuite = transform.AES256GCM16
)
