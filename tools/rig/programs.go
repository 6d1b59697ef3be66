package rig

import (
	"fmt"
	"os"
	"os/exec"
)

// Programs builds sallyportd and sallyport from the sources around the calling test into a new
// temporary folder, which the caller removes: for TestMain, once a test binary.
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
