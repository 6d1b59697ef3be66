package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
)

// routeProtocol marks the fence routes in the kernel (rtm_protocol).
const routeProtocol = 83

func (t *tool) detachCommand() *cobra.Command {
	var pinDir string
	var force bool
	c := &cobra.Command{
		Use: "detach", Short: "Open the gateway: remove its XDP programs and fence routes",
		Long: "Detach removes what keeps protected traffic blocked while no daemon runs: the pinned XDP links and the\nunreachable routes of protected prefixes in this network namespace. AFTER IT, PROTECTED TRAFFIC MAY LEAVE IN\nTHE CLEAR. It refuses while the daemon runs, unless --force.",
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

// detach unpins everything under dir: the kernel detaches an XDP link when its
// last reference goes. Then it removes the fence routes. A route into a TUN device exists
// only while a daemon runs, which may have another control socket than the one asked.
func (t *tool) detach(dir string, force bool) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("listing the fence routes: %w", err)
	}
	for i := range routes {
		if routes[i].Type == unix.RTN_UNICAST && !force {
			return fmt.Errorf("a daemon runs in this network namespace (%s leads into its TUN device): stop it first, or use --force", routes[i].Dst)
		}
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
	removed := 0
	for i := range routes {
		if routes[i].Type != unix.RTN_UNREACHABLE {
			continue
		}
		if err := netlink.RouteDel(&routes[i]); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the fence route %s: %w", strings.TrimSpace(routes[i].Dst.String()), err)
		}
		removed++
	}
	fmt.Fprintf(t.out, "removed %s from this network namespace; protected traffic may now leave in the clear\n", count(removed, "fence route"))
	return nil
}
