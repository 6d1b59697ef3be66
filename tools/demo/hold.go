package main

import (
	"errors"
	"fmt"
	"time"

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
	n, err := build(bed)
	if err != nil {
		return err
	}
	gateways, err := startGateways(bed, n, bin)
	if err != nil {
		return err
	}
	fmt.Println("Two gateways run, with traffic between their hosts. Ctrl-C ends everything.")
	for i, g := range gateways {
		ns := []*testbed.Namespace{n.gwA, n.gwB}[i]
		fmt.Printf("\n%s: namespace %s, configuration %s, log %s\n", g.name, ns.Name, g.config, g.log)
		fmt.Printf("  %s --socket %s top\n", g.tool, g.socket)
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
			<-g.process.Done()
			failed <- errors.Join(g.alive(), logs(gateways))
		}()
	}
	return <-failed
}
