// Package repocheck holds the repository to its own rules. It has tests only:
// which package may import which and why, which modules are used and why, that
// every package says what it is for, that links in the texts lead somewhere, that
// the sources are formatted, and that names which users see are unique.
package repocheck
