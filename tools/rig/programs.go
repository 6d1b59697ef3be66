package rig

import (
	"fmt"
	"os"
	"os/exec"

	"sallyport/tools/testbed"
)

// Programs builds sallyportd and sallyport from the sources around the calling test into a new
// temporary folder, which the caller removes.
func Programs() (folder string, err error) {
	if folder, err = os.MkdirTemp("", "sallyport-programs-"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", folder, "sallyport/cmd/sallyportd", "sallyport/cmd/sallyport")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(folder)
		return "", fmt.Errorf("building the programs: %w: %s", err, out)
	}
	return folder, nil
}

// WithPrograms makes folder that of [Programs] while run runs, if this machine lets tests have what those need, and returns what run returns: for
// TestMain, once a test binary.
func WithPrograms(folder *string, run func() int) (code int) {
	if len(testbed.Missing(testbed.Root...)) == 0 {
		var err error
		if *folder, err = Programs(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(*folder)
	}
	return run()
}
