package repocheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed says which packages of this module a package may import outside its
// tests, in the order of the packet's way. Imports point downwards only. A package
// that is missing here fails the test: give it a line and a reason.
var allowed = []struct {
	pkg     string // a trailing /... covers everything below
	imports []string
	reason  string
}{
	{"dataplane/packet", nil, "the bottom: records and reasons that everything shares"},
	{"dataplane/replay", []string{"dataplane/packet"}, "verdicts are drop reasons"},
	{"dataplane/ethtool", nil, "what the kernel says of an interface's driver; for the engine and for doctor"},
	{"dataplane/prefetch", nil, "a primitive"},
	{"dataplane/release", nil, "a primitive"},
	{"dataplane/offheap", nil, "a primitive"},
	{"dataplane/threads", nil, "what the kernel is told of this process's threads"},
	{"dataplane/registry", nil, "a primitive"},
	{"dataplane/aesgcm", []string{"dataplane/prefetch", "dataplane/registry"}, "a primitive, tested alone against the standard library"},
	{"dataplane/xsk", []string{"dataplane/packet", "dataplane/release"}, "descriptors"},
	{"dataplane/memio", []string{"dataplane/packet", "dataplane/release", "dataplane/xsk"}, "stands in for a socket, with its statistics"},
	{"dataplane/tun", []string{"dataplane/packet", "dataplane/memio", "dataplane/xsk"}, "the gateway's own traffic, carried by an in-memory queue"},
	{"bpf", []string{"dataplane/packet"}, "used by the data plane and by the load generator; knows neither"},
	{"dataplane/transform", []string{"dataplane/aesgcm", "dataplane/packet", "dataplane/prefetch", "dataplane/registry"}, "suites over the primitive"},
	{"dataplane/spd", []string{"dataplane/packet"}, "selectors match flows"},
	{"dataplane/sad", []string{"dataplane/offheap", "dataplane/packet", "dataplane/prefetch", "dataplane/replay", "dataplane/spd", "dataplane/transform"}, "an association holds its key, window and selectors"},
	{"dataplane/esp", []string{"dataplane/packet", "dataplane/aesgcm", "dataplane/ipfrag", "dataplane/replay", "dataplane/sad", "dataplane/spd", "dataplane/transform"}, "is given associations; never looks anything up but the parts of one, and what a finder knows"},
	{"dataplane/fib", []string{"dataplane/packet"}, "next hops as the kernel has them"},
	{"dataplane/forward", []string{"dataplane/packet", "dataplane/fib"}, "writes what a next hop says"},
	{"dataplane/ipfrag", []string{"dataplane/packet"}, "fragments of packets"},
	{"dataplane/datagram", []string{"dataplane/packet"}, "frames with IKE's datagrams in them"},
	{"dataplane/keeper", []string{"bpf", "dataplane/datagram", "dataplane/packet", "dataplane/xsk"}, "every privileged operation"},
	{"dataplane/worker", []string{"dataplane/esp", "dataplane/fib", "dataplane/forward", "dataplane/ipfrag", "dataplane/memio", "dataplane/offheap", "dataplane/packet", "dataplane/prefetch", "dataplane/replay", "dataplane/sad", "dataplane/spd", "dataplane/threads", "dataplane/transform", "dataplane/xsk"}, "one core's loop: calls the stages in order"},
	{"dataplane", []string{"bpf", "dataplane/..."}, "the engine: starts workers, publishes tables"},
	{"ike/suite", []string{"ike/message"}, "proposals and protection are of messages"},
	{"ike/message", nil, "the bottom of the key exchange: bytes and the rules for them"},
	{"ike/auth/authtest", nil, "certificates for tests; knows nothing of who checks them"},
	{"ike/auth", []string{"ike/message", "ike/suite"}, "proofs are payloads, and the pre-shared key's is a PRF"},
	{"ike/ikesa", []string{"ike/auth", "ike/message", "ike/suite"}, "one IKE SA: drives the three below it"},
	{"ike/...", []string{"ike/..."}, "never imports the data plane: the daemon translates"},
	{"ike", []string{"ike/..."}, "never imports the data plane: the daemon translates"},
	{"cmd/internal/...", []string{"cmd/internal/...", "dataplane/packet", "dataplane/sad", "dataplane/spd", "dataplane/transform", "ike/auth", "ike/ikesa", "ike/message", "ike/suite"}, "configuration describes policies, connections and credentials in the terms of those who take them"},
	{"cmd/sallyportd", []string{"bpf", "cmd/internal/...", "dataplane", "dataplane/...", "ike", "ike/..."}, "the only place that knows both planes"},
	{"cmd/sallyport", []string{"bpf", "cmd/internal/...", "dataplane/ethtool", "dataplane/keeper", "dataplane/packet", "dataplane/transform", "dataplane/xsk"}, "asks the daemon; detach and doctor look at links, routes and interfaces themselves; check names suites"},
	{"cmd/sallyport-bench", []string{"bench/...", "cmd/internal/version", "dataplane/threads", "dataplane/transform"}, "shows what bench measures, with threads as the daemon has them; suites have names"},
	{"bench/...", []string{"bench/...", "bpf", "dataplane", "dataplane/...", "ike", "ike/...", "tools/craft", "tools/rig", "tools/testbed"}, "measures everything"},
	{"tools/craft", nil, "an oracle: writes packets without the gateway's code"},
	{"tools/testbed", nil, "must be able to judge the gateway, so shares nothing with it"},
	{"tools/rig", []string{"tools/testbed"}, "runs the programs as a user does and sees them from outside"},
	{"tools/demo", []string{"tools/craft", "tools/rig", "tools/testbed"}, "sees the gateway from outside, as a user does"},
	{"tools/failclosed", nil, "tests only"},
	{"tools/interop", []string{"tools/craft", "tools/rig", "tools/testbed"}, "holds the gateway against another implementation, from outside"},
	{"tools/...", []string{"dataplane/packet", "tools/..."}, "looks after the repository"},
}

// planned are lines of the table for packages of the layout that are yet to come.
var planned []string

// modules says why each module from elsewhere is used at all.
var modules = map[string]string{
	"charm.land/bubbles/v2":                   "table and keys of the live viewer",
	"charm.land/bubbletea/v2":                 "the live viewer's terminal",
	"charm.land/lipgloss/v2":                  "the live viewer's layout",
	"filippo.io/bigmod":                       "constant-time powers for the MODP groups",
	"filippo.io/edwards25519":                 "X25519 at half its price",
	"github.com/agnivade/levenshtein":         "the nearest known word, for those who mistyped one",
	"github.com/HdrHistogram/hdrhistogram-go": "latency figures of the benchmarks",
	"github.com/asavie/xdp":                   "an independent AF_XDP peer; tests only",
	"github.com/c2sp/wycheproof":              "known answers and traps for ciphers; tests only",
	"github.com/charmbracelet/colorprofile":   "what the viewer's terminal can show",
	"github.com/charmbracelet/x/ansi":         "widths of styled text in the viewer",
	"github.com/charmbracelet/x/term":         "whether the output is a terminal",
	"github.com/cilium/ebpf":                  "loads the steering program",
	"github.com/gaissmai/bart":                "longest-prefix tables",
	"github.com/goccy/go-yaml":                "YAML with positions",
	"github.com/gopacket/gopacket":            "writes captures as pcapng; in tests an independent packet codec",
	"github.com/klauspost/cpuid/v2":           "which instructions the processor has",
	"github.com/mattn/go-isatty":              "whether the log goes to a terminal",
	"github.com/rs/zerolog":                   "the log",
	"github.com/spf13/cobra":                  "the control tool's verbs and help",
	"github.com/spf13/pflag":                  "cobra's flags",
	"github.com/strongswan/govici":            "drives strongSwan, to measure it and to test against it",
	"github.com/vishvananda/netlink":          "routes, neighbours, links",
	"github.com/vishvananda/netns":            "namespaces of tests",
	"golang.org/x/crypto":                     "ChaCha20-Poly1305, OCSP",
	"golang.org/x/sync":                       "groups of goroutines",
	"golang.org/x/sys":                        "system calls",
	"pgregory.net/rapid":                      "property tests",
}

// testOnly are modules that never get into a program.
var testOnly = []string{"github.com/asavie/xdp", "github.com/c2sp/wycheproof", "pgregory.net/rapid"}

func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return strings.HasPrefix(pkg, below+"/")
	}
	return pattern == pkg
}

// root is the repository's folder, seen from this package's.
const root = "../.."

// source is one parsed Go file; pkg is its folder below the root, with slashes.
type source struct {
	path, pkg string
	file      *ast.File
	test      bool
}

// sources parses every Go file of the module; other modules in subfolders are left out.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && skipped(path, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		all = append(all, source{path, filepath.ToSlash(rel), f, strings.HasSuffix(path, "_test.go")})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func skipped(path, name string) bool {
	if name == ".git" || name == "testdata" || path == filepath.Join(root, "build") {
		return true
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

func TestImportsPointDownwards(t *testing.T) {
	for _, s := range sources(t) {
		rule := slices.IndexFunc(allowed, func(r struct {
			pkg     string
			imports []string
			reason  string
		}) bool {
			return matches(r.pkg, s.pkg)
		})
		if rule < 0 {
			t.Errorf("%s: package %s has no line in the table of allowed imports", s.path, s.pkg)
			continue
		}
		for _, spec := range s.file.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			ours, isOurs := strings.CutPrefix(path, "sallyport/")
			switch {
			case isOurs && s.test: // tests may use what they need; the compiler forbids cycles
			case isOurs:
				if !slices.ContainsFunc(allowed[rule].imports, func(p string) bool { return matches(p, ours) }) {
					t.Errorf("%s imports %s; %s may import %v: %s", s.path, ours, s.pkg, allowed[rule].imports, allowed[rule].reason)
				}
			case strings.Contains(strings.Split(path, "/")[0], "."):
				module := moduleOf(path)
				if module == "" {
					t.Errorf("%s imports %s, whose module has no line in the table of modules", s.path, path)
				} else if !s.test && slices.Contains(testOnly, module) && !strings.HasPrefix(s.pkg, "bench") && !strings.HasPrefix(s.pkg, "tools") {
					t.Errorf("%s imports %s, which is for tests only: %s", s.path, path, modules[module])
				}
			}
		}
	}
}

func moduleOf(path string) string {
	for m := range modules {
		if path == m || strings.HasPrefix(path, m+"/") {
			return m
		}
	}
	return ""
}

// TestUnsafeIsWhereItIsLookedFor: memory that the compiler does not watch is touched in
// files ending _unsafe.go only, so that a reader who doubts finds all of it.
func TestUnsafeIsWhereItIsLookedFor(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_unsafe.go") || strings.HasSuffix(s.path, "_unsafe_test.go") || ast.IsGenerated(s.file) {
			continue
		}
		for _, spec := range s.file.Imports {
			if spec.Path.Value == `"unsafe"` {
				t.Errorf("%s imports unsafe: it belongs into a file ending _unsafe.go", s.path)
			}
		}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname") {
					t.Errorf("%s uses go:linkname: it belongs into a file ending _unsafe.go", s.path)
				}
			}
		}
	}
}

// TestEveryLineOfTheTableHasAReason and names a package that exists, or a folder of the layout.
func TestEveryLineOfTheTableHasAReason(t *testing.T) {
	all := sources(t)
	for _, rule := range allowed {
		if rule.reason == "" {
			t.Errorf("%s: the line has no reason", rule.pkg)
		}
		planned := slices.Contains(planned, rule.pkg)
		exists := slices.ContainsFunc(all, func(s source) bool { return matches(rule.pkg, s.pkg) })
		if !exists && !planned {
			t.Errorf("%s: there is no such package", rule.pkg)
		}
		if exists && planned {
			t.Errorf("%s exists, so it is not planned any more", rule.pkg)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented, seen := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		seen[s.pkg] = true
		if s.file.Doc != nil && len(strings.TrimSpace(s.file.Doc.Text())) > 30 {
			documented[s.pkg] = true
		}
	}
	for pkg := range seen {
		if !documented[pkg] {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

func TestFoldersAtTheTopAreFixed(t *testing.T) {
	known := []string{".ci", ".git", "bpf", "dataplane", "ike", "bench", "cmd", "tools", "build"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(known, e.Name()) {
			t.Errorf("folder %s at the top: the layout has none of that name", e.Name())
		}
	}
}
