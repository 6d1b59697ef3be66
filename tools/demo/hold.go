package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

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
	pair, err := rig.NewPair(n, bin, rig.Negotiated())
	if err != nil {
		return err
	}
	if err := pair.Start(); err != nil {
		return errors.Join(err, logs(pair.Both()))
	}
	fmt.Println("Two gateways run, with traffic between their hosts. Ctrl-C ends everything.")
	for _, g := range pair.Both() {
		fmt.Printf("\n%s in network namespace %s, configuration %s:\n", g.Name, g.NS.Name, g.Config)
		fmt.Printf("  %s --socket %s top\n", filepath.Join(bin, "sallyport"), g.Socket)
	}
	// At a signal the testbed takes everything down and ends the process; what fails from then on is no news.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	for _, f := range families {
		for _, back := range []bool{false, true} {
			go func() {
				for {
					if _, err := tcp(n, f, holdBlock, back); err != nil && ctx.Err() == nil {
						fmt.Println(err)
						time.Sleep(time.Second)
					}
				}
			}()
		}
	}
	for {
		for _, g := range pair.Both() {
			if err := g.Alive(); err != nil && ctx.Err() == nil {
				return errors.Join(err, logs(pair.Both()))
			}
		}
		time.Sleep(time.Second)
	}
}
