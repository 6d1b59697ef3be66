// Package version names the build that a program comes from.
package version

import "runtime/debug"

// stamp and commit are what the Makefile writes into the build: the version, and the commit's full name.
var stamp, commit string

// Commit returns the full name of the commit that the program was built from, "" if the build does not tell.
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// String returns the build's stamp, else what the Go tool recorded: the commit, with "+changes" if
// the tree had any.
func String() string {
	if stamp != "" {
		return stamp
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, changes := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+changes"
		}
	}
	if revision == "" {
		return info.Main.Version
	}
	return revision + changes
}
