package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/dataplane/keeper"
)

func (t *tool) detachCommand() *cobra.Command {
	var pinDir string
	var force bool
	c := &cobra.Command{
		Use: "detach", Short: "Open the gateway: remove its XDP programs, fence routes and tunnel interfaces",
		Long: "Detach removes what keeps protected traffic blocked while no daemon runs: the pinned XDP links, the\nfences of protected prefixes (routes and rules) and the tunnel interfaces in this network namespace. AFTER IT, PROTECTED TRAFFIC MAY LEAVE IN\nTHE CLEAR. It refuses while the daemon runs, unless --force.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
			defer cancel()
			_, err := control.NewClient(t.path()).Do(ctx, control.VerbStatus, nil, nil)
			if !errors.Is(err, control.ErrUnreachable) && !force {
				return errors.New("sallyportd is running: stop it first, or use --force")
			}
			if pinDir == "" {
				pinDir = config.PinDir(t.instance)
			}
			return t.detach(pinDir, force)
		},
	}
	c.Flags().StringVar(&pinDir, "pin-dir", "", "dataplane.pin_dir of the configuration (default /sys/fs/bpf/sallyport/INSTANCE)")
	c.Flags().BoolVar(&force, "force", false, "detach under a running daemon")
	return c
}

// detach unpins everything under dir: the kernel detaches an XDP link when its last
// reference goes. Then it removes the fences. A route into a TUN device exists only while a
// daemon runs, which may have another control socket than the one asked.
func (t *tool) detach(dir string, force bool) error {
	k, err := keeper.NewLocal()
	if err != nil {
		return err
	}
	defer k.Close()
	routes, err := k.Routes()
	if err != nil {
		return err
	}
	var running []keeper.Route
	for _, r := range routes {
		if r.Interface != "" {
			running = append(running, r)
		}
	}
	if len(running) > 0 && !force {
		return fmt.Errorf("a daemon runs in this network namespace (%s leads into its TUN device): stop it first, or use --force", running[0].Prefix)
	}
	var fs unix.Statfs_t
	switch err := unix.Statfs(dir, &fs); {
	case errors.Is(err, os.ErrNotExist):
		fmt.Fprintf(t.out, "%s: nothing is pinned\n", dir)
	case err != nil:
		return fmt.Errorf("reading %s: %w", dir, err)
	case fs.Type != unix.BPF_FS_MAGIC:
		return fmt.Errorf("%s is not inside a bpffs; nothing was removed", dir)
	default:
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("reading the pins: %w", err)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("unpinning: %w", err)
			}
			fmt.Fprintf(t.out, "unpinned %s\n", e.Name())
		}
		if err := os.Remove(dir); err != nil {
			return fmt.Errorf("removing the pin directory: %w", err)
		}
	}
	if err := errors.Join(k.ReconcileRoutes(running), k.ReconcileSources(nil, "")); err != nil {
		return fmt.Errorf("removing the fences: %w", err)
	}
	interfaces, err := k.Interfaces(t.instance)
	if err != nil {
		return err
	}
	for _, name := range interfaces {
		if err := k.DeleteInterface(name, t.instance); err != nil {
			return err
		}
		fmt.Fprintf(t.out, "removed interface %s\n", name)
	}
	fmt.Fprintf(t.out, "removed %s from this network namespace; protected traffic may now leave in the clear\n", count(len(routes)-len(running), "fence route"))
	return nil
}
