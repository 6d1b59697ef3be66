// Package hosttest looks at the gateway from where its users are: hosts behind two gateways, and what their own programs
// (ping, traceroute, scapy) say of the way between them. It runs on the network of tools/rig, with a capture
// between the gateways, to which all of it must be ESP.
package hosttest
