// Package version names the build that a program comes from.
package version

import "runtime/debug"

// stamp is the version that the Makefile writes into the build.
var stamp string

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
