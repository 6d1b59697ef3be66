package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// holdBlock is how much TCP one connection of a held demo carries, in bytes.
const holdBlock = 16 << 20

// hold leaves the gateways running, with traffic over both families and both ways,
// until the process is told to end: a place to try the control tool. The testbed
// takes everything down at the signal.
func hold(bin string) (err error) {
	bed, err := testbed.New("demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	n, err := rig.Build(bed)
	if err != nil {
		return err
	}
	pair, err := rig.NewPair(n, bin, rig.Tunnels())
	if err != nil {
		return err
	}
	gateways := pair.Both()
	if err := pair.Start(); err != nil {
		return errors.Join(err, logs(gateways))
	}
	fmt.Println("Two gateways run, with traffic between their hosts. Ctrl-C ends everything.")
	for _, g := range gateways {
		fmt.Printf("\n%s: namespace %s, configuration %s, log %s\n", g.Name, g.NS.Name, g.Config, g.Log)
		fmt.Printf("  %s --socket %s top\n", filepath.Join(bin, "sallyport"), g.Socket)
	}
	failed := make(chan error)
	for _, f := range families {
		for _, back := range []bool{false, true} {
			go func() {
				for {
					if _, err := tcp(n, f, holdBlock, back); err != nil {
						fmt.Println(err)
						time.Sleep(time.Second)
					}
				}
			}()
		}
	}
	for _, g := range gateways {
		go func() {
			for g.Alive() == nil {
				time.Sleep(time.Second)
			}
			failed <- errors.Join(g.Alive(), logs(gateways))
		}()
	}
	return <-failed
}
