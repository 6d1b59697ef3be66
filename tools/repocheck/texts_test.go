package repocheck

import (
	"bytes"
	"go/format"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/dataplane/packet"
)

// walk calls f with every text file of the repository.
func walk(t *testing.T, f func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || path == filepath.Join(root, "build") {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() == ".git" { // in a second worktree, a file that names the first
			return nil
		}
		if !d.Type().IsRegular() || strings.HasSuffix(path, ".test") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) < 0 {
			f(path, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTextsNameNoPlaceOfTheirMaking keeps paths and hosts of the machines on which
// this was written out of it: nobody else has them.
func TestTextsNameNoPlaceOfTheirMaking(t *testing.T) {
	// Written in parts, so that this file does not hold them either.
	words := []string{"/wo" + "rk/", "/tmp/" + "bash_jobs", "/tmp/" + "plan"}
	for _, name := range []string{"GOPROXY", "PIP_INDEX_URL", "HTTPS_PROXY", "https_proxy"} {
		for _, word := range strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' || r == '|' }) {
			if u, err := url.Parse(word); err == nil && u.Hostname() != "" && u.Hostname() != "localhost" {
				words = append(words, u.Hostname())
			}
		}
	}
	walk(t, func(path string, text []byte) {
		for _, w := range words {
			if i := bytes.Index(text, []byte(w)); i >= 0 {
				t.Errorf("%s:%d names %s", path, 1+bytes.Count(text[:i], []byte("\n")), w)
			}
		}
	})
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksLeadSomewhere follows the relative links of every Markdown file, and
// their anchors.
func TestLinksLeadSomewhere(t *testing.T) {
	walk(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, ".md") {
			return
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			body, err := os.ReadFile(to)
			if info, statErr := os.Stat(to); statErr != nil {
				t.Errorf("%s links to %s, which does not exist", path, target)
				continue
			} else if info.IsDir() {
				continue
			} else if err != nil {
				t.Errorf("%s links to %s: %v", path, target, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(body), anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, target)
			}
		}
	})
}

// anchors are the names that a forge gives the headings of a text.
func anchors(text []byte) []string {
	var all []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		name = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(name, "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// TestArchitectureNamesEveryPackage: the table of packages lists each that exists and no other.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z0-9/-]+)`").FindAllStringSubmatch(cells[1], -1) {
			named[m[1]] = true
		}
	}
	exists := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			exists[s.pkg] = true
		}
	}
	for pkg := range exists {
		if !named[pkg] {
			t.Errorf("package %s is not in the table", pkg)
		}
	}
	for pkg := range named {
		if !exists[pkg] {
			t.Errorf("the table names %s, which does not exist", pkg)
		}
	}
}

func TestGoFilesAreFormatted(t *testing.T) {
	walk(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		want, err := format.Source(text)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if !bytes.Equal(text, want) {
			t.Errorf("%s is not formatted: gofmt -w", path)
		}
	})
}

// TestDropNamesAreUniqueWords: the name of a drop reason is the same word in the
// program, the control tool, metrics and logs, so it must be one.
func TestDropNamesAreUniqueWords(t *testing.T) {
	word := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]int{}
	for i, d := range packet.Drops {
		if !word.MatchString(d.Name) {
			t.Errorf("drop reason %d: name %q", i, d.Name)
		}
		if other, taken := seen[d.Name]; taken {
			t.Errorf("drop reasons %d and %d are both called %s", other, i, d.Name)
		}
		seen[d.Name] = i
		if !strings.HasSuffix(d.Sentence, ".") {
			t.Errorf("drop reason %s has no sentence", d.Name)
		}
	}
}
