// Package version says which build a program is. It reads what the Go
// toolchain stamps into the binary.
package version

import (
	"runtime"
	"runtime/debug"
)

// String gives the module version, or the commit, with the Go version and
// platform.
func String() string {
	v := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
				v = s.Value
			}
		}
	}
	return v + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
