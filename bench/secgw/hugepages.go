package secgw

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// hugePages is how many pages of 2 MiB it wants.
const hugePages = 1024

const hugePagesFile = "/proc/sys/vm/nr_hugepages"

// ReserveHugePages gives the gateway its huge pages; the function it returns takes them back.
func ReserveHugePages() (func() error, error) {
	text, err := os.ReadFile(hugePagesFile)
	if err != nil {
		return nil, err
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hugePagesFile, err)
	}
	if before >= hugePages {
		return func() error { return nil }, nil
	}
	set := func(n int) error { return os.WriteFile(hugePagesFile, []byte(strconv.Itoa(n)), 0) }
	if err := set(hugePages); err != nil {
		return nil, fmt.Errorf("reserving huge pages for %s: %w", Name, err)
	}
	return func() error { return set(before) }, nil
}
